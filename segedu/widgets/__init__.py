"""One explorer per chapter, all made with `segedu.widgets.explore.explore`."""
