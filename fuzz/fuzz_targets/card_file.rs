//! Files of suppliers: text of any encoding and separator, worksheets. Whatever it is, it is read twice to the same end, or
//! refused in words.

#![no_main]

use std::path::PathBuf;

use kami_server::{CardFile, ReadOptions};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&how, data)) = data.split_first() else { return };
    let ending = ["csv", "txt", "xlsx", "tsv"][usize::from(how % 4)];
    let path = PathBuf::from(format!("/dev/shm/kami-fuzz-{}.{ending}", std::process::id()));
    std::fs::write(&path, data).expect("a file can be written");
    let options = ReadOptions { currency: *b"CNY", ..ReadOptions::default() };
    if let Ok(file) = CardFile::open(&path, &options) {
        let _ = (file.remark(), file.reading());
        let count = || {
            let mut cards = file.cards().ok()?;
            let mut lines = 0_u64;
            while let Some(_line) = cards.next().ok()? {
                lines += 1;
                assert!(lines <= data.len() as u64 * 1100 + 1100, "more lines than the file can have");
            }
            Some(lines)
        };
        assert_eq!(count(), count());
        let _ = file.survey(|_| ());
    }
    let _ = std::fs::remove_file(&path);
});
