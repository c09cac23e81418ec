"""The embedded phantom: procedurally made bodies with labelled organs."""
