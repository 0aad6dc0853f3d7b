//! A batch's file with other bytes in it. Its header's hash is put right where the first byte says so, so that what is
//! behind it is read, too.

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
        let name = medium.list("batches").expect("the disk is on").remove(0);
        Base(medium, format!("batches/{name}"))
    });
    let Some((&how, edits)) = data.split_first() else { return };
    let medium = medium.kill();
    medium.edit(path, |bytes| {
        edit(bytes, edits);
        if how & 1 != 0 {
            let hash = blake3::hash(&bytes[..64]);
            bytes[64..96].copy_from_slice(hash.as_bytes());
        }
        if how & 2 != 0 {
            bytes.truncate(usize::from(how) << 6);
        }
    });
    open_damaged(&medium);
});
