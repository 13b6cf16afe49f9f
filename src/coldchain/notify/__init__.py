"""Telling people and machines what happened: e-mail, syslog, webhook.

`rules`, `outbox` and `message` decide and touch nothing; `mail`, `syslog` and `webhook` do what was decided;
`notifier` joins them.
"""
