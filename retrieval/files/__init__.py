"""What every file that lmr writes or trusts goes through: whole or not at all, one writer, digests, strict JSON."""
