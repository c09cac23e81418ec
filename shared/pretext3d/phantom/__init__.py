"""The embedded phantom: procedurally generated bodies with labelled organs."""
