//! By what a node proves to an acceptor that it has connected there before.

#[expect(deprecated, reason = "the one keyed hash of the standard library whose algorithm is named: SipHash-2-4")]
use std::hash::SipHasher;
use std::hash::{Hash, Hasher};

use crate::net::node_ids;
use crate::ring::random;
use crate::wire::handshake::Token;

/// The tokens of a node: one for each address that it connects to.
///
/// Each is a keyed hash of the address, under a key that never leaves the node. So no two acceptors can act for the
/// node at each other, all cores show the same token at once, and nothing has to be kept however many addresses there
/// are.
pub(super) struct Tokens([u64; 6]);

impl Tokens {
    /// With a new key from the random source of the operating system.
    pub(super) fn new() -> Tokens {
        Tokens([(); 6].map(|()| random()))
    }

    /// The token for an acceptor at this address.
    pub(super) fn of(&self, address: &str) -> Token {
        let [a, b, c, d, ..] = self.0;
        let halves = [hash(a, b, address), hash(c, d, address)];
        let mut token = [0; 16];
        token[..8].copy_from_slice(&halves[0].to_le_bytes());
        token[8..].copy_from_slice(&halves[1].to_le_bytes());
        Token(token)
    }

    /// The id that this node gives to another one that shows this token, if it cannot have the incarnation that it
    /// claims: always the same, so that nothing has to be kept either.
    pub(super) fn id_for(&self, incarnation: u64, token: Token) -> u64 {
        let [.., e, f] = self.0;
        node_ids::given(hash(e, f, &(incarnation, token)))
    }
}

#[expect(deprecated, reason = "as above")]
fn hash<T: Hash + ?Sized>(key: u64, more: u64, value: &T) -> u64 {
    let mut hasher = SipHasher::new_with_keys(key, more);
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_a_token_of_its_own_and_each_run_others() {
        let tokens = [Tokens::new(), Tokens::new()];
        let all = tokens.each_ref().map(|tokens| ["127.0.0.1:1", "127.0.0.1:2", "unix:/a"].map(|to| tokens.of(to).0));
        let all: std::collections::HashSet<_> = all.into_iter().flatten().collect();
        assert_eq!(all.len(), 6);
        assert_eq!(tokens[0].of("127.0.0.1:1"), tokens[0].of("127.0.0.1:1"));
        // The first vector of SipHash-2-4's authors for 15 bytes, 00 to 0e, under the key 00 to 0f.
        let mut hasher = {
            #[expect(deprecated, reason = "as above")]
            SipHasher::new_with_keys(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908)
        };
        hasher.write(&std::array::from_fn::<u8, 15, _>(|at| at as u8));
        assert_eq!(hasher.finish(), 0xa129_ca61_49be_45e5);
    }
}
