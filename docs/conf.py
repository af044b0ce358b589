"""Sphinx configuration. Built by `nox -s docs`, with warnings as errors and without the network."""

from trio_hub import __version__

project = "trio_hub"
author = "The trio_hub authors"
copyright = f"2026, {author}"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"

# Links to other projects' names would need inventories from the network: only links to ours are checked.
nitpick_ignore_regex = [("py:.*", r"(?!trio_hub\b).*")]
# Types that signatures of documented names mention, and that users need not know.
nitpick_ignore = [
    ("py:class", "trio_hub.client.client.T"),
    ("py:class", "trio_hub.client.executor.T"),
    ("py:class", "trio_hub.transport.channel.Channel"),
    ("py:class", "trio_hub.runtime.host.RuntimeHost"),
    ("py:class", "trio_hub.wire.frames._LargeFrame"),
    ("py:class", "trio_hub.wire.messages.Message"),
    ("py:class", "trio_hub.wire.messages.Session"),
]

html_theme = "furo"
html_title = f"trio_hub {release}"
