"""Prints the whole book into _build/book.pdf; `segedu pdf` runs it."""

from segedu_site import paper

if __name__ == "__main__":
    paper.main()
