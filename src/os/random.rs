//! Random numbers of the kernel.

use std::io;

/// 128 random bits, unlike any that were drawn before.
pub fn bits() -> io::Result<u128> {
    #[cfg(test)]
    if super::simulated::is_on() {
        return Ok(fastrand::u128(..));
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(u128::from_le_bytes(bytes))
}
