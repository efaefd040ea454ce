"""The dictionaries of Parquet files, in which a text that many rows have is kept once."""

from collections.abc import Collection, Iterator
from typing import Any

_BUFFER_BYTES = 1 << 24  # of a column that is read at once


def longest_in_dictionaries(source: str, names: Collection[str], above: int) -> Iterator[tuple[int, int]]:
    """Of each dictionary of these columns the bytes of its longest text, and how many there are in a list at most.

    above: bytes; dictionaries that can hold no text of that length are left out. For a column without lists the
    second number is 1. pyarrow's errors are raised as they are.
    """
    metadata = _open(source, []).metadata
    columns = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    chosen = [(i, path) for i, path in enumerate(columns) if path.split(".")[0] in names]
    file = None
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for i, path in chosen:
            chunk = group.column(i)
            if not chunk.has_dictionary_page or chunk.total_uncompressed_size <= above:
                continue
            file = file or _open(source, [path for _, path in chosen])
            if longest := _longest_text(file, number, path.split(".")[0]):
                yield longest, chunk.num_values if "." in path else 1


def _open(source: str, as_dictionaries: list[str]) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(
        source, read_dictionary=as_dictionaries, buffer_size=_BUFFER_BYTES, page_checksum_verification=True
    )


def _longest_text(file: Any, group: int, column: str) -> int:
    """Bytes of the longest text in the dictionary of a column; 0 where it holds no texts."""
    import pyarrow.compute
    import pyarrow.types as types

    batch = next(file.iter_batches(batch_size=1, row_groups=[group], columns=[column]), None)
    values = None if batch is None else batch.column(0)
    while values is not None and (types.is_list(values.type) or types.is_large_list(values.type)):
        values = values.values
    if values is None or not types.is_dictionary(values.type) or not len(values.dictionary):
        return 0
    kind = values.type.value_type
    if not any(is_kind(kind) for is_kind in (types.is_string, types.is_binary, types.is_large_string)):
        return 0
    return int(pyarrow.compute.max(pyarrow.compute.binary_length(values.dictionary)).as_py() or 0)
