//! How a command ends: an exit code that scripts rely on, and one sentence for the person.
//!
//! Every library error is turned into a [`Failure`] here and nowhere else, so that the same cause has the
//! same code in every command. Each sentence says what is wrong and what to do about it.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::process::ExitCode;

use kami_engine::{
    Exceeded, IdentityError as StoreError, KeyError, LimitId, OpenError, Poisoned, Status, VerifyError,
};
use kami_net::frame::money::OneAccount;
use kami_net::frame::{Body, Wait};
use kami_net::{ClientError, IdentityError, ServerError};
use kami_server::CardFileError;
use kami_wal::{DiskError, OpenError as LogError};

/// The exit codes. The numbers are relied on by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// A proof failed.
    ProofFailed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The engine decided against it, or a card file did not pass.
    Refused = 3,
    /// The server cannot be reached, or gave no answer.
    Unreachable = 4,
    /// Data is damaged or of another version.
    Damaged = 5,
    /// Something around it is not as it must be.
    Environment = 6,
    /// Ended by the person at the keyboard.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// A command that was not done.
#[derive(Debug)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// One sentence.
    pub message: String,
    /// What the engine said, if it was asked.
    pub status: Option<Status>,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), status: None }
    }

    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    pub fn refused(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Refused, message)
    }

    pub fn environment(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Environment, message)
    }
}

/// An error with its causes, on one line.
pub fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Transparent errors repeat what they wrap.
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// What was refused, its code, and what to do about it.
pub fn refusal(status: Status) -> String {
    let meaning = status.meaning().trim_end_matches('.');
    format!("refused: {meaning} ({}): {}", status.code(), status.advice())
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let text = sentence(&error);
        match error {
            ClientError::Refused { status, answer } => {
                let wait = match answer.body {
                    Body::Wait(Wait { wait_ms }) => format!(" wait=`{} s`", wait_ms.div_ceil(1000)),
                    // No limit of the tenant's, but what stands where none is set.
                    Body::Exceeded(Exceeded { limit: LimitId(0), left, .. }) => {
                        format!(" limit=`none is set, so the default` left=`{left}`")
                    }
                    Body::Exceeded(Exceeded { limit, left, opens_ms: u64::MAX, .. }) => {
                        format!(" limit=`{limit}` left=`{left}` opens=`never`")
                    }
                    Body::Exceeded(Exceeded { limit, left, opens_ms, .. }) => {
                        format!(" limit=`{limit}` left=`{left}` opens=`{} s`", opens_ms.div_ceil(1000))
                    }
                    Body::Account(OneAccount { account }) => format!(" account=`{account}`"),
                    _ => String::new(),
                };
                Failure { exit: Exit::Refused, message: refusal(status) + &wait, status: Some(status) }
            }
            ClientError::Unauthenticated => {
                Failure { status: Some(Status::Unauthenticated), ..Failure::refused(text) }
            }
            ClientError::Expired { .. } => {
                Failure { status: Some(Status::Unauthenticated), ..Failure::refused(text) }
            }
            ClientError::Unreachable { .. } | ClientError::Unknown { .. } => {
                Failure::new(Exit::Unreachable, text)
            }
            ClientError::BadReply | ClientError::CodesUnreadable { .. } => Failure::new(Exit::Damaged, text),
            ClientError::DoesNotFit(_) => Failure::usage(text),
            ClientError::Identity(error) => error.into(),
            _ => Failure::environment(text),
        }
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Failure {
        let text = sentence(&error);
        let hint = match &error {
            IdentityError::File { source, .. } if source.kind() == ErrorKind::NotFound => {
                "; give the directory with ca.pem, cert.pem and key.pem by --identity or KAMI_IDENTITY"
            }
            IdentityError::File { source, .. } if source.kind() == ErrorKind::StorageFull => {
                "; make room and start again"
            }
            IdentityError::Unusable { .. } => "; restore the file, or have the identity issued again",
            _ => "",
        };
        Failure::environment(format!("{text}{hint}"))
    }
}

/// What to do about an address that cannot be had.
pub fn address_hint(error: &io::Error, option: &str) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => format!(
            "ports below 1024 take CAP_NET_BIND_SERVICE: give it to the program, or choose a higher port with \
             {option}"
        ),
        ErrorKind::AddrNotAvailable => {
            format!(
                "this machine has no such address: choose one of its own, or 0.0.0.0 for all, with {option}"
            )
        }
        _ => format!("stop what uses it or choose another with {option}"),
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Failure {
        let text = sentence(&error);
        match error {
            ServerError::LogFailed => Failure::new(Exit::Damaged, text),
            ServerError::Bind { source, .. } => {
                Failure::environment(format!("{text}; {}", address_hint(&source, "--listen")))
            }
            _ => Failure::environment(text),
        }
    }
}

impl From<CardFileError> for Failure {
    fn from(error: CardFileError) -> Failure {
        let text = sentence(&error);
        match error {
            CardFileError::NotCards { .. } => Failure::refused(text),
            _ => Failure::environment(text),
        }
    }
}

impl From<Poisoned> for Failure {
    fn from(error: Poisoned) -> Failure {
        Failure::new(Exit::Damaged, format!("{error}; look after the disk, then start again"))
    }
}

impl From<DiskError> for Failure {
    fn from(error: DiskError) -> Failure {
        let text = sentence(&error);
        let hint = match error {
            DiskError::InUse { .. } => "stop that process first",
            DiskError::UnsafeFilesystem { .. } => {
                "choose a directory on a local disk, or accept the loss with --unsafe-filesystem"
            }
            DiskError::NoDirectWrites { .. } => "use --commit-path mapped or auto",
            _ => "check the path, its permissions and the disk",
        };
        Failure::environment(format!("{text}; {hint}"))
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Failure {
        let text = sentence(&error);
        match &error {
            LogError::Unsupported { .. } => {
                Failure::new(Exit::Damaged, format!("{text}; use the newer program"))
            }
            LogError::Refused { .. } | LogError::Poisoned => Failure::new(Exit::Damaged, text),
            error if error.is_damage() => Failure::new(
                Exit::Damaged,
                format!("{text}; nothing was changed: restore the store from a backup"),
            ),
            LogError::Io { source, .. } if source.kind() == ErrorKind::StorageFull => {
                Failure::environment(format!(
                    "{text}; make room and start again: a start takes a segment of 64 MiB, and two more soon after"
                ))
            }
            _ => Failure::environment(format!("{text}; check the disk")),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let text = sentence(&error);
        match error {
            StoreError::Version { .. } => {
                Failure::new(Exit::Damaged, format!("{text}; use the program that made it"))
            }
            StoreError::Damaged => Failure::new(Exit::Damaged, text),
            StoreError::NotAStore { .. } => {
                Failure::environment(format!("{text}; give an empty or a new directory"))
            }
            _ => Failure::environment(text),
        }
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Failure {
        let text = sentence(&error);
        let hint = match error {
            KeyError::Missing { .. } => " (--keys says where they are)",
            KeyError::Wrong { .. } => "; give this store's key directory with --keys",
            _ => "; check the permissions of the key directory",
        };
        Failure::environment(format!("{text}{hint}"))
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        let text = sentence(&error);
        match error {
            OpenError::Disk(error) => error.into(),
            OpenError::Identity(error) => error.into(),
            OpenError::Keys(error) => error.into(),
            OpenError::Log(error) => error.into(),
            OpenError::Replay(kami_engine::ReplayError::Key { .. }) => Failure::environment(text),
            OpenError::Replay(_) | OpenError::DuplicateCard { .. } => Failure::new(
                Exit::Damaged,
                format!("{text}; nothing was changed: run `kami verify`, or restore the store from a backup"),
            ),
            _ => Failure::environment(text),
        }
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Failure {
        let text = sentence(&error);
        match error {
            VerifyError::Identity(error) => error.into(),
            VerifyError::Keys(error) => error.into(),
            VerifyError::Log(error) => error.into(),
            _ => Failure::environment(format!("{text}; check the path given as --data")),
        }
    }
}
