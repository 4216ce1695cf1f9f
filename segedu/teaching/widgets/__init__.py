"""One explorer per chapter, all made with `segedu.teaching.widgets.explore.explore`."""
