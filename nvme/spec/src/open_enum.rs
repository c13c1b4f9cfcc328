//! The one macro behind every value a peer can put on the wire.

/// Declares a newtype with named constants: a value without a name stays a value.
///
/// A Rust `enum` was rejected because a peer chooses the number: an unnamed one would be undefined
/// behaviour or would have to be folded into a lossy `Unknown`. `Debug` prints the name, or the
/// type and the number in hexadecimal.
macro_rules! open_enum {
    (
        $(#[$meta:meta])*
        pub enum $Name:ident: $Repr:ty {
            $( $(#[$vmeta:meta])* $VALUE:ident = $value:expr, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash,
            ::zerocopy::FromBytes, ::zerocopy::IntoBytes,
            ::zerocopy::Immutable, ::zerocopy::KnownLayout,
        )]
        #[repr(transparent)]
        pub struct $Name(pub $Repr);

        impl $Name {
            $( $(#[$vmeta])* pub const $VALUE: Self = Self($value); )*

            /// Every named value, in the order of the specification's table.
            pub const NAMED: &'static [Self] = &[$( Self::$VALUE, )*];

            /// The value's name in this crate, if it has one.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $( Self::$VALUE => Some(stringify!($VALUE)), )*
                    _ => None,
                }
            }

            /// From the number on the wire.
            #[must_use]
            pub const fn from_bits(bits: $Repr) -> Self {
                Self(bits)
            }

            /// The number on the wire.
            #[must_use]
            pub const fn into_bits(self) -> $Repr {
                self.0
            }
        }

        impl ::core::fmt::Debug for $Name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, concat!(stringify!($Name), "({:#x})"), self.0),
                }
            }
        }
    };
}
pub(crate) use open_enum;

/// Derives what every structure in memory shares, and proves its size at compile time.
macro_rules! wire_struct {
    (
        $(#[$meta:meta])*
        pub struct $Name:ident[$size:literal] {
            $($body:tt)*
        }
    ) => {
        $(#[$meta])*
        #[derive(
            Clone, Debug, PartialEq, Eq,
            ::zerocopy::FromBytes, ::zerocopy::IntoBytes,
            ::zerocopy::Immutable, ::zerocopy::KnownLayout,
        )]
        #[repr(C)]
        pub struct $Name {
            $($body)*
        }

        const _: () = assert!(::core::mem::size_of::<$Name>() == $size);
    };
}
pub(crate) use wire_struct;
