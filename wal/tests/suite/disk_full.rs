//! The disk fills up: appends are refused before anything changes, and service returns with room.

use kami_wal::{Lsn, NoSpace, SimMedium, SimMode};

use crate::world::{SEGMENT_BYTES, append, open, payload, try_append};

#[test]
fn a_full_disk_refuses_and_heals() {
    for mode in [SimMode::Direct, SimMode::Mapped] {
        let medium = SimMedium::new(1, mode);
        medium.set_capacity(Some(2 * SEGMENT_BYTES));
        let (wal, _) = open(&medium).unwrap();
        let mut history = Vec::new();
        let mut refused = 0;
        for index in 0..40 {
            let _ = wal.prepare();
            match try_append(&wal, &payload(1, index, 4000)) {
                Ok(kept) => history.push(kept),
                Err(NoSpace::DiskFull) => refused += 1,
                Err(other) => panic!("{other}"),
            }
            wal.commit().unwrap();
        }
        assert!(20 < history.len() - refused / 40 || 10 < refused, "the disk never filled up");
        assert_eq!(wal.prepare(), Err(NoSpace::DiskFull));
        assert_eq!(wal.durable_end(), wal.tail(), "what was accepted is durable");
        let mut bytes = Vec::new();
        for kept in &history {
            wal.read(Lsn::from_bytes(kept.lsn).unwrap(), &mut bytes).unwrap();
            assert_eq!(bytes, kept.payload);
        }

        medium.set_capacity(None);
        wal.prepare().unwrap();
        history.push(append(&wal, &payload(1, 99, 4000)));
        wal.commit().unwrap();
        drop(wal);
        assert_eq!(open(&medium.crash(1)).unwrap().1, history);
    }
}

#[test]
fn a_log_on_a_full_disk_is_not_harmed_by_trying_to_open_it() {
    let medium = SimMedium::new(1, SimMode::Direct);
    let (wal, _) = open(&medium).unwrap();
    let kept = append(&wal, &payload(1, 1, 4000));
    wal.commit().unwrap();
    drop(wal);
    medium.set_capacity(Some(SEGMENT_BYTES));
    open(&medium).unwrap_err();
    medium.set_capacity(None);
    assert_eq!(open(&medium).unwrap().1, [kept]);
}

#[test]
fn a_start_needs_no_room_where_a_segment_lies_prepared() {
    for mode in [SimMode::Direct, SimMode::Mapped] {
        let medium = SimMedium::new(1, mode);
        medium.set_capacity(Some(2 * SEGMENT_BYTES));
        let (wal, _) = open(&medium).unwrap();
        let kept = append(&wal, &payload(1, 1, 4000));
        wal.commit().unwrap();
        assert_eq!(wal.prepare(), Err(NoSpace::DiskFull), "one is prepared, and no room for more");
        drop(wal);

        let (wal, found) = open(&medium).unwrap();
        assert_eq!((found, wal.epoch()), (vec![kept.clone()], 2));
        let second = append(&wal, &payload(1, 2, 4000));
        wal.commit().unwrap();
        drop(wal);

        // There is none prepared now.
        open(&medium.crash(1)).unwrap_err();
        medium.set_capacity(None);
        assert_eq!(open(&medium.crash(1)).unwrap().1, [kept, second]);
    }
}
