"""Train, validation and test: stratified group splits."""
