//! Why a stream or a connection was ended: the code in QUIC's own frames.
//!
//! Where a status says the same, its number is used; what only happens to connections begins at 400.

macro_rules! close_codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $code:literal;)+) => {
        /// Why a stream or a connection was ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        #[non_exhaustive]
        pub enum CloseCode { $($(#[doc = $doc])+ $name = $number,)+ }

        impl CloseCode {
            /// Every code, in order of number.
            pub const ALL: &'static [CloseCode] = &[$(CloseCode::$name,)+];

            /// The code with this number.
            #[must_use]
            pub const fn from_number(number: u64) -> Option<CloseCode> {
                match number { $($number => Some(CloseCode::$name),)+ _ => None }
            }

            /// The stable name.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(CloseCode::$name => $code,)+ }
            }

            /// One sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(CloseCode::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

close_codes! {
    /// The peer is done.
    Done = 0, "DONE";
    /// A frame's length is below that of a head, or a stream ended inside a frame.
    Malformed = 200, "MALFORMED";
    /// A frame's version is not this one.
    Unsupported = 202, "UNSUPPORTED";
    /// The certificate's key belongs to no principal, or to a revoked one.
    Unauthenticated = 203, "UNAUTHENTICATED";
    /// A frame is longer than any may be.
    TooLarge = 205, "TOO_LARGE";
    /// Too many connections, in all, from this address or of this principal; try again later.
    Busy = 300, "BUSY";
    /// The server is shutting down; connect again and send what has no reply with the same ids.
    ShuttingDown = 400, "SHUTTING_DOWN";
    /// The server's log failed: what has no reply is unknown until the server is back.
    LogFailed = 401, "LOG_FAILED";
    /// The server broke the protocol (sent by clients).
    BadReply = 402, "BAD_REPLY";
    /// The certificate's time ran out while the connection stood; renew it and connect again.
    CertificateExpired = 403, "CERTIFICATE_EXPIRED";
    /// The peer took no reply for too long.
    TooSlow = 404, "TOO_SLOW";
}

impl CloseCode {
    /// The number in QUIC's frames.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }
}
