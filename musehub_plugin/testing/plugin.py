"""pytest plugin of musehub-plugin: see `musehub_plugin.testing`."""
