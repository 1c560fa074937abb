"""The parts of `scripts/bench`, a file for each thing that is measured."""
