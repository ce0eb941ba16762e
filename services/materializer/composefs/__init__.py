"""The composefs format: trees, their text form, the EROFS metadata image and its digest."""
