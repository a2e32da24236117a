//! Protected interfaces: which row of counters belongs to which, kept over restarts of the agent.

/// Interfaces one gateway can protect.
pub const INTERFACE_SLOTS: u32 = 16;

/// A row of the interface table. Only userspace reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Interface {
    /// The kernel's index; 0 is a free row. A device made anew under the same name has another index.
    pub index: u32,
    /// [`Mode`] as a number.
    pub mode: u32,
    /// The name, ended by 0 (IFNAMSIZ is 16).
    pub name: [u8; 16],
}

/// How a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Mode {
    /// In the driver.
    Native = 1,
    /// In the network stack, after the driver has made a socket buffer.
    Generic = 2,
}

impl Mode {
    /// The label in metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// The mode with this number.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Native),
            2 => Some(Self::Generic),
            _ => None,
        }
    }
}

const _: () = assert!(size_of::<Interface>() == 24);
