"""Names of columns: lmr's own, those that others give the same things, and those that say nothing of a landmark."""

import re

LATITUDE, LONGITUDE = "lat", "lon"  # the names of coordinates, whatever a table calls them
DEGREES = (LATITUDE, LONGITUDE)
PLANE = ("utm_east", "utm_north")  # in metres, of one zone

# Column names as they are read (case does not count) and what they hold.
ROLES = {
    "id": "image_id",
    "image_id": "image_id",
    "imageid": "image_id",
    "landmark_id": "landmark",
    "landmark": "landmark",
    "label": "landmark",
    "landmarks": "landmarks",
    "images": "images",
    "url": "url",
    "originalurl": "url",
    "path": "path",
    "kind": "kind",
    "usage": "usage",
    "labelname": "label_name",
    "confidence": "confidence",
    "xmin": "box",
    "name": "name",
    "displayname": "name",
    "address": "address",
}
# The same by the names that others give them. Where a file has a column of the names above, that one counts; two of
# these for one thing are refused, as either may be meant.
ALIASES = {
    **dict.fromkeys(("img_id", "photo_id", "picture_id", "image_key"), "image_id"),
    **dict.fromkeys(
        (
            *("image", "img", "photo", "picture", "file", "filename", "file_name", "fname", "filepath", "file_path"),
            *("image_path", "img_path", "imagepath", "image_file", "image_name", "img_name", "imagename", "photo_path"),
            *("full_path", "relative_path", "rel_path"),
        ),
        "path",
    ),
    **dict.fromkeys(
        (
            *("class", "class_id", "class_name", "classname", "class_label", "category", "category_id", "target"),
            *("category_name", "species", "label_id", "label_name", "landmark_name", "place", "place_id"),
            *("met_id", "cls", "txt"),
        ),
        "landmark",
    ),
    **dict.fromkeys(("image_url", "img_url", "photo_url"), "url"),
}
MEANINGS = {"image_id": "image_id", "path": "path", "landmark": "landmark_id", "url": "url", "content": "the pictures"}
AS_IN_KNOWN_FILES = frozenset(("id", "image_id", "imageid", "landmark_id", "path", "url", "originalurl"))
# Columns that say something of an image, but not what it shows.
HARMLESS = frozenset(
    (
        *("width", "height", "size", "bytes", "channels", "mode", "format", "md5", "sha1", "sha256", "hash", "phash"),
        *("date", "time", "timestamp", "year", "lat", "lon", "lng", "latitude", "longitude", "camera", "photographer"),
        *("caption", "description", "comment", "split", "subset", "fold", "index", "level_0"),
    )
)
# Coordinates in degrees (WGS84), by the names that others give them.
COORDINATES = {
    **dict.fromkeys(("lat", "latitude"), LATITUDE),
    **dict.fromkeys(("lon", "lng", "long", "longitude"), LONGITUDE),
}
PICTURE_ROLES = frozenset(("image_id", "landmark", "landmarks", "path", "url", "kind", "usage", "content"))
NOBODYS = frozenset(("cause", "level_0"))  # of lmr's failed.csv, and pandas' index: nothing that a person wrote
ROW_NUMBERS = re.compile(r"(unnamed:_?\d+)?")  # the name of pandas' index in a file, once written and once read again
# Columns of known files that lmr has no use for.
UNUSED = frozenset(
    (
        "cause",  # of lmr's failed.csv
        *("supercategory", "hierarchical_label", "natural_or_human_made"),  # train_label_to_hierarchical.csv
        *("source", "xmax", "ymin", "ymax", "isoccluded", "istruncated", "isgroupof", "isdepiction", "isinside"),
        *("subset", "originallandingurl", "license", "authorprofileurl", "author", "title", "originalsize"),
        *("originalmd5", "thumbnail300kurl", "rotation"),  # Open Images' boxes (the line before) and image lists
    )
)


def key_of(name: str) -> str:
    """A name as it is looked up: case, spaces and hyphens do not count."""
    return re.sub(r"[ -]+", "_", name.lower())
