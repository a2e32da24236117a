//! An IP address as on the wire.

use core::net::IpAddr;

/// An IP address, in words as on the wire.
///
/// A struct and not an enum of two lengths: every word has a value, so a copy is plain in the kernel, where
/// the verifier refuses to copy what one of two branches left unset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    /// IPv4 or IPv6.
    pub family: Family,
    /// IPv4 in the first word, the others 0.
    pub words: [u32; 4],
}

/// One of the two address families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

impl Address {
    /// 0.0.0.0
    pub const UNSPECIFIED: Self = Self::v4(0);

    /// An IPv4 address.
    #[inline(always)]
    pub const fn v4(word: u32) -> Self {
        Self { family: Family::V4, words: [word, 0, 0, 0] }
    }

    /// An IPv6 address.
    #[inline(always)]
    pub const fn v6(words: [u32; 4]) -> Self {
        Self { family: Family::V6, words }
    }

    /// The address as numbers: IPv4 in the first, IPv6 in both, the upper half first.
    #[inline(always)]
    pub const fn halves(&self) -> (u64, u64) {
        match self.family {
            Family::V4 => (u32::from_be(self.words[0]) as u64, 0),
            Family::V6 => (
                (u32::from_be(self.words[0]) as u64) << 32 | u32::from_be(self.words[1]) as u64,
                (u32::from_be(self.words[2]) as u64) << 32 | u32::from_be(self.words[3]) as u64,
            ),
        }
    }

    /// Bits of this family's longest prefix.
    #[inline(always)]
    pub const fn max_prefix_len(&self) -> u32 {
        match self.family {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::v4(u32::from_ne_bytes(v4.octets())),
            IpAddr::V6(v6) => {
                let mut words = [0; 4];
                for (word, four) in words.iter_mut().zip(v6.octets().chunks_exact(4)) {
                    *word = u32::from_ne_bytes([four[0], four[1], four[2], four[3]]);
                }
                Self::v6(words)
            }
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        match address.family {
            Family::V4 => address.words[0].to_ne_bytes().into(),
            Family::V6 => {
                let mut octets = [0; 16];
                for (four, word) in octets.chunks_exact_mut(4).zip(address.words) {
                    four.copy_from_slice(&word.to_ne_bytes());
                }
                octets.into()
            }
        }
    }
}
