"""Keys, certificates, the trust ledger, issuance and rotation policy, without I/O."""
