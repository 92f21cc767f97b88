//! The ways to say which endpoint is meant.

use crate::address::{Address, AddressError, EndpointUri};

/// What says which endpoint is meant: its URI, or the address of its node and its name.
///
/// ```
/// # use ringpost::{Address, EndpointRef, LookupError, RpcEnv};
/// # fn refs(env: &RpcEnv) -> Result<(), LookupError> {
/// env.endpoint_ref("ringpost://accounts@127.0.0.1:7077")?;
/// env.endpoint_ref(("127.0.0.1:7077", "accounts"))?;
/// env.endpoint_ref((&Address::unix("/run/bank.sock")?, "accounts"))?;
/// # Ok(())
/// # }
/// ```
pub trait Locator: sealed::Locate {}

impl<L: sealed::Locate> Locator for L {}

impl<T: AsRef<str> + ?Sized> sealed::Locate for &T {
    fn locate(self) -> Result<EndpointUri, AddressError> {
        self.as_ref().parse()
    }
}

impl<A: sealed::ToAddress> sealed::Locate for (A, &str) {
    fn locate(self) -> Result<EndpointUri, AddressError> {
        EndpointUri::new(self.0.to_address()?, self.1)
    }
}

impl sealed::ToAddress for &Address {
    fn to_address(self) -> Result<Address, AddressError> {
        Ok(self.clone())
    }
}

impl sealed::ToAddress for &str {
    fn to_address(self) -> Result<Address, AddressError> {
        self.parse()
    }
}

pub(crate) mod sealed {
    use super::{Address, AddressError, EndpointUri};

    /// Only types of this crate and the standard library say which endpoint is meant.
    pub trait Locate {
        /// The endpoint that is meant.
        fn locate(self) -> Result<EndpointUri, AddressError>;
    }

    /// An address, or its text.
    pub trait ToAddress {
        /// The address.
        fn to_address(self) -> Result<Address, AddressError>;
    }
}
