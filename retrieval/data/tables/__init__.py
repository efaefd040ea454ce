"""Tables of images in other forms than CSV: JSON, COCO, WebDataset."""
