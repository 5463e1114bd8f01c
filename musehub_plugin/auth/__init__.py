"""Ready-made identity loaders, for hosts that know their callers in one of the usual ways.

`bearer` takes opaque tokens, `jwt` signed ones, `flask_login` the session; `chain` tries several. A host with
another way writes a function of its own: it gets the request, and returns an `Identity` or None.
"""
