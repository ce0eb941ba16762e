"""The resolver: references in, concrete and fully pinned run plans out."""
