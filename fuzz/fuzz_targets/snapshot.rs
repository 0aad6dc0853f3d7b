//! A snapshot with other bytes in it. Its hashes are put right where the first byte says so, so that what is behind them
//! is read, too.

#![no_main]

use std::sync::OnceLock;

use kami_fuzz::{edit, open_damaged, store};
use kami_wal::{Medium, SimMedium, SimMode};
use libfuzzer_sys::fuzz_target;

struct Base(SimMedium, String);

fuzz_target!(|data: &[u8]| {
    static BASE: OnceLock<Base> = OnceLock::new();
    let Base(medium, path) = BASE.get_or_init(|| {
        let medium = store(SimMode::Direct, true);
        let name = medium.list("snapshots").expect("the disk is on").remove(0);
        Base(medium, format!("snapshots/{name}"))
    });
    let Some((&how, edits)) = data.split_first() else { return };
    let medium = medium.kill();
    medium.edit(path, |bytes| {
        edit(bytes, edits);
        if how & 1 != 0 {
            let hash = blake3::hash(&bytes[4096..]);
            bytes[64..96].copy_from_slice(hash.as_bytes());
            let hash = blake3::hash(&bytes[..96]);
            bytes[96..128].copy_from_slice(hash.as_bytes());
        }
        if how & 2 != 0 {
            bytes.truncate(usize::from(how) << 5);
        }
    });
    open_damaged(&medium);
});
