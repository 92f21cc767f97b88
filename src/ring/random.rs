//! Random numbers of the operating system.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;

/// 64 bits that nobody can foretell, from the operating system's random source. A system call: not for the path of a
/// message.
pub fn random() -> u64 {
    let mut bytes = [0u8; 8];
    loop {
        // SAFETY: `bytes` is writable for as many bytes as are asked for, and lives until the call has returned.
        let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        if got == bytes.len() as isize {
            return u64::from_ne_bytes(bytes);
        }
        if got >= 0 || io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
            continue;
        }
        // A sandbox that forbids the call. The keys of the standard library's hashers are secret as well.
        return RandomState::new().hash_one(0u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_over_all_bits() {
        let numbers: Vec<u64> = (0..100).map(|_| random()).collect();
        let (any, all) = (numbers.iter().fold(0, |any, n| any | n), numbers.iter().fold(u64::MAX, |all, n| all & n));
        assert_eq!((any, all), (u64::MAX, 0), "a bit is the same in all of 100: once in 2^92 runs");
    }
}
