"""Files that lmr writes or trusts: whole or not at all, one writer, digests, strict JSON."""
