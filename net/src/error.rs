//! What may fail, and what the one who sees it does about it.

use std::io;
use std::net::SocketAddr;

use kami_engine::Status;

/// What a caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Try again; the same request keeps its id.
    Retry,
    /// Change the request, the configuration or the rights; trying again as it is will fail again.
    Reject,
    /// Stop: nothing here can be trusted to work any more.
    Fatal,
}

/// A server that cannot be started or cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address is taken or may not be used.
    #[error("cannot listen on the address address=`{address}`")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The certificate or key does not serve.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// An option is out of its range.
    #[error("the option is out of its range option=`{option}`")]
    Option {
        /// Which one.
        option: &'static str,
    },
    /// The engine's log failed; the process must end.
    #[error("the log failed; nothing is acknowledged any more")]
    LogFailed,
}

impl ServerError {
    /// What to do about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            ServerError::LogFailed => ErrorKind::Fatal,
            _ => ErrorKind::Reject,
        }
    }
}

/// A key or certificate that cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("cannot use the file path=`{}`", path.display())]
    File {
        /// Which one.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file is there already and is not overwritten.
    #[error("there is an identity already path=`{}`", path.display())]
    Exists {
        /// Which file.
        path: std::path::PathBuf,
    },
    /// A certificate or key cannot be made or read.
    #[error("the certificate or key is not usable what=`{what}`")]
    Unusable {
        /// Which.
        what: &'static str,
    },
    /// The key file may be read by others.
    #[error("others may read the key file; chmod it to 600 path=`{}`", path.display())]
    Exposed {
        /// Which file.
        path: std::path::PathBuf,
    },
    /// Another authority issued it than the one the running server works with.
    #[error("the certificate is of another authority; restart the server to change to it")]
    OtherAuthority,
    /// The authority that everybody here trusts has ended, or this machine's clock is wrong.
    #[error(
        "the certificate authority ended on {day} or this machine's clock is wrong; check the clock, then have \
         a new authority made and every identity issued again"
    )]
    AuthorityEnded {
        /// The day, as `2026-11-22`.
        day: String,
    },
    /// The lifetime of a certificate is out of range.
    #[error(
        "a certificate lives 1 to {} days; choose another lifetime days=`{days}`",
        crate::LIFETIME_DAYS_MAX
    )]
    Lifetime {
        /// What was asked for.
        days: u32,
    },
    /// TLS refuses the pair.
    #[error("the certificate and key do not work together")]
    Tls(#[source] rustls::Error),
}

impl IdentityError {
    /// What to do about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        ErrorKind::Reject
    }
}

/// A request that has no reply, or one that says no.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The client's own identity does not serve.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The local socket cannot be opened.
    #[error("cannot open a socket")]
    Socket(#[source] io::Error),
    /// The server could not be reached in time; the request was never sent.
    #[error(
        "cannot reach the server; is it running, and is the address right? server=`{server}` cause=`{cause}`"
    )]
    Unreachable {
        /// Which server.
        server: SocketAddr,
        /// The last cause.
        cause: String,
    },
    /// The server's certificate is not from our authority, or ours is not from its.
    #[error(
        "the certificates do not fit; use the identity that this server's authority issued cause=`{cause}`"
    )]
    Untrusted {
        /// What TLS says.
        cause: String,
    },
    /// Our certificate's time is over.
    #[error(
        "the certificate expired on {day}: have the admin renew it with `kami principal renew {name}` name=`{name}`"
    )]
    Expired {
        /// Whom it was issued to.
        name: String,
        /// The day, as `2026-11-22`.
        day: String,
    },
    /// The server's certificate's time is over, or this machine's clock is wrong.
    #[error(
        "the server's certificate has expired or this machine's clock is wrong; check the clock, then restart the server"
    )]
    ServerExpired,
    /// The server does not know our key, or revoked it.
    #[error("the server does not know this identity or has revoked it; ask its admin to add the principal")]
    Unauthenticated,
    /// The request was sent and no reply came in time. It may have taken effect: send the same request
    /// with the same id again, or reverse it.
    #[error("no reply came; the outcome is unknown: send it again with the same id request=`{request}`")]
    Unknown {
        /// The id of the request.
        request: kami_engine::RequestId,
    },
    /// The server decided against it.
    #[error("refused: {} status=`{}`", status.meaning(), status.code())]
    Refused {
        /// The status, whose class says what to do.
        status: Status,
        /// The whole reply.
        answer: Box<crate::frame::Answer>,
    },
    /// The request does not fit a frame.
    #[error(transparent)]
    DoesNotFit(#[from] crate::frame::request::DoesNotFit),
    /// The server answered with something else than the protocol says.
    #[error("the server's reply is not what the protocol says; are the versions the same?")]
    BadReply,
    /// The order's codes cannot be read now; they belong to it and may be fetched later.
    #[error("the server could not read all codes; fetch the order again later read=`{read}` total=`{total}`")]
    CodesUnreadable {
        /// How many were read.
        read: u32,
        /// How many there are.
        total: u32,
    },
    /// The file of rows to import ended early or failed.
    #[error("the rows to import cannot be read")]
    Rows(#[source] io::Error),
}

impl ClientError {
    /// What to do about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            ClientError::Unreachable { .. }
            | ClientError::Unknown { .. }
            | ClientError::CodesUnreadable { .. } => ErrorKind::Retry,
            ClientError::Refused { status, .. } => match status.class() {
                kami_engine::Class::NotExecuted => ErrorKind::Retry,
                _ => ErrorKind::Reject,
            },
            ClientError::BadReply => ErrorKind::Fatal,
            _ => ErrorKind::Reject,
        }
    }
}
