"""The wire protocol of the released `muse` command, on the same tables as the plugin's own.

It differs in three ways: ids travel as bare hex, a fetch is answered with the history itself, and a push sends its
blobs ahead, in requests of their own. `records` and `bundle` translate what travels; `fetch` plans as the plugin's own
fetch does and writes the answer out.

**Staging.** A blob that was sent ahead belongs to nobody yet: the push that names it may never come, or be refused.
Held by the repo at once it would be there for good, and so would those of a push that failed. So each request's blobs
are hashed and put into storage as one file, which no other part of the plugin reads, with a row for each blob that is
visible to this user in this repo alone (`staging`). They are bounded in size, expire with the ticket of their upload,
and are collected like any upload that was not used.

**One way into the tables.** The push takes the blobs that its snapshots name and the repo lacks from staging, and makes
an mpack of them and of the commits and snapshots that it brought. From there on it is a push like any other
(`musehub_plugin.push.store_pack`): the same code hashes every entity, follows every reference, checks the branch and
writes the rows, so that nothing which is refused at one door gets in by the other. A push that is refused takes what
was staged for it along.
"""
