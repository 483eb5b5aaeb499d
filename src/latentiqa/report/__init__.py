"""Reports: from the results.json files of runs to tables. Nothing is read from the W&B API."""
