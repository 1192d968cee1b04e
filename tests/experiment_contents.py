"""Contents of experiment files with something changed."""

import copy


def change_content(content, path, value):
    """Return the content with the value at ``section.key`` changed, or removed if None."""
    changed = copy.deepcopy(content)
    *sections, key = path.split(".")
    inner = changed
    for section in sections:
        inner = inner[section]
    inner[key] = value
    if value is None:
        del inner[key]
    return changed
