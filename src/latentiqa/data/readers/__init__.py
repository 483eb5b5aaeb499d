"""Readers of published datasets in their authors' layouts, one module a layout.

Each has a `Source`, what is known of the dataset, and a function ``read_<name>(root)`` that gives a
`Manifest`. Columns, ranges, directions and traps are those of the authors' files; what a reader
does about a trap is said in its docstring.
"""
