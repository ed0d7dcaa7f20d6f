"""Keys, certificates, the trust ledger, issuance and rotation policy, without I/O.

*Head* 3, here and elsewhere in the code, is point 3 under that heading of docs/spec/ledger.md.
"""
