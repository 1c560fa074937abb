//! Plans, entitlements and money
