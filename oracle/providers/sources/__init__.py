"""Data networks behind the Protocol `Source`: their data, normalised, is the input of an inference (`data://…`)."""
