//! Which hakaru this is.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The revision it was built from.
pub const REVISION: &str = "unknown";
