//! The layouts of groups and entries, as tables: the document is rendered from them.

/// Where in a group's payload the first entry begins.
///
/// The payload of one log record is a *group*: what one turn of the sequencer decided.
///
/// | offset | bytes | field | meaning |
/// |---|---|---|---|
/// | 0 | 8 | time | engine time of the group, milliseconds since 1970: the tick |
/// | 8 | 4 | entries | how many follow; 0 is a tick alone |
/// | 12 | 4 | reserved | zero |
pub const GROUP_HEAD_BYTES: usize = 16;

/// The part every entry begins with; the fields are listed in [`HEAD_FIELDS`].
pub const HEAD_BYTES: usize = 64;

/// One row of a layout table: offset, bytes, name, meaning.
pub type Field = (usize, usize, &'static str, &'static str);

/// The layout of a group's head.
pub const GROUP_FIELDS: &[Field] = &[
    (0, 8, "time", "engine time, milliseconds since 1970; a group is a tick"),
    (8, 4, "entries", "how many entries follow; 0 is a tick alone"),
    (12, 4, "reserved", "zero"),
];

/// The layout of an entry's head. Entries that are not about one card keep zero in `post` and `prev`.
pub const HEAD_FIELDS: &[Field] = &[
    (0, 1, "kind", "what happened, see the table of kinds"),
    (
        1,
        1,
        "grounds",
        "8-byte units of the grounds at the end of the entry, behind its tail; zero: none were given",
    ),
    (2, 2, "back", "8-byte units from the record's first byte to this entry"),
    (4, 4, "length", "bytes of the whole entry, a multiple of 8"),
    (8, 16, "request", "the client's request id; zero for the engine itself"),
    (24, 4, "principal", "who asked"),
    (28, 4, "terminal", "at which till, or zero"),
    (32, 4, "merchant", "for which merchant, or zero"),
    (36, 2, "tenant", "whose cards"),
    (38, 2, "channel", "through which channel, or zero"),
    (40, 4, "body", "CRC-32C of what was asked: tells a retry from a reused id"),
    (44, 2, "post", "the card's lifecycle (4 bits) and flags (12 bits) afterwards"),
    (46, 2, "reserved", "zero"),
    (48, 8, "subject", "the card (24 bits of batch, 40 of row), or the batch, product or principal number"),
    (
        56,
        8,
        "prev",
        "the card's word before: its last entry, lifecycle and flags; of what opens an order, where the tenant's order before was opened",
    ),
];

/// The layout of the grounds, which stand behind the tail of any entry whose head says that there are some.
pub const GROUNDS_FIELDS: &[Field] = &[
    (0, 16, "approval", "the proposal under which it was done; zero: none"),
    (16, 4, "approver", "who approved it; without an approval zero"),
    (20, 1, "length", "of the reason, at most 255"),
    (21, 0, "why", "UTF-8; zero-padded, so that all of the grounds is a multiple of 8"),
];

/// What follows the head, by kind. Kinds that are not named here have nothing.
pub const TAIL_FIELDS: &[(&str, &[Field])] = &[
    (
        "START",
        &[
            (64, 8, "wall", "wall clock, milliseconds since 1970"),
            (72, 8, "boot", "milliseconds since the machine was booted"),
            (80, 16, "boot id", "which boot"),
        ],
    ),
    (
        "RESTORE",
        &[
            (64, 8, "kept", "the end of what was kept of the former history"),
            (72, 8, "backup end", "up to where the backup held it"),
            (80, 8, "dropped", "how many effects lay between the two"),
            (88, 8, "wall", "wall clock of the restoring, milliseconds since 1970"),
        ],
    ),
    (
        "KEY_ROTATE",
        &[(64, 8, "key", "id of the new master key"), (72, 8, "keys", "data keys wrapped with it")],
    ),
    (
        "SIGNED_CHECKPOINT",
        &[
            (64, 8, "size", "how many entries of the log the checkpoint covers"),
            (72, 32, "root", "the root of the Merkle tree over them"),
            (104, 32, "key", "the Ed25519 public key"),
            (136, 64, "signature", "of the checkpoint's text"),
        ],
    ),
    (
        "REVERSE, TOMBSTONE, MISS",
        &[
            (64, 16, "original", "the request id that was reversed"),
            (80, 8, "original lsn", "its entry; zero for a tombstone"),
        ],
    ),
    (
        "REDEEM and REVERSE of cards that are used in parts, are held or were used offline; HOLD, CAPTURE, RELEASE, HOLD_TIMEOUT, LOAD, REFUND_VALUE, SETTLE",
        &[
            (64, 8, "amount", "what was moved, held, released or loaded: minor units, or uses"),
            (72, 8, "remaining", "what is left on the card, held or not"),
            (80, 8, "held", "what is held of it by holds whose deadline has not passed"),
            (88, 8, "redeemed", "what was redeemed since the sale and not reversed"),
            (
                96,
                8,
                "loaded",
                "what was loaded and not reversed, and came from other cards, less what went to others; signed",
            ),
            (104, 8, "refunded", "what was refunded"),
            (112, 16, "related", "request id of the hold or of the redemption it is about; else zero"),
            (128, 8, "related lsn", "that one's entry; else zero"),
            (
                136,
                8,
                "time",
                "of HOLD its deadline, of a REDEEM that was made offline when, milliseconds since 1970; of REVERSE the number of the kind of what it undoes; else zero",
            ),
            (
                144,
                8,
                "sale",
                "the entry of the sale the card belongs to, or of the return that took it back; zero if unknown",
            ),
            (152, 8, "settled", "redemptions before this position are settled; zero: none"),
            (
                160,
                4,
                "effects",
                "how many entries with such a tail the card has, this one included: its number",
            ),
            (164, 2, "tombstones", "how many tombstones the card has"),
            (166, 2, "reversals", "how many of its redemptions were reversed"),
            (
                168,
                8,
                "begun",
                "from when the card's validity counts, if that is from an event of its own; else zero",
            ),
            (176, 8, "skip", "the last entry of the chapter before; a chapter is 32 numbers"),
            (184, 8, "volume", "the last entry of the volume before; a volume is 32 chapters"),
            (192, 64, "filter", "512 bits: a Bloom filter of the ids of the chapter so far, 5 bits an id"),
            (
                256,
                72,
                "chapter",
                "of the last entry of a volume: last entry (zero: this one) and filter of each chapter",
            ),
        ],
    ),
    (
        "ADVICE",
        &[
            (64, 8, "card", "where the card stands; all ones: the code is nobody's"),
            (72, 16, "digest", "of the code that was reported"),
            (88, 8, "amount", "what was redeemed, as in REDEEM"),
            (96, 8, "made", "when, by the till's clock, milliseconds since 1970"),
            (104, 2, "reason", "why it did not fit: the number of a status"),
            (106, 6, "reserved", "zero"),
        ],
    ),
    (
        "PIN_LOCK",
        &[
            (64, 8, "until", "when the lock ends, milliseconds since 1970"),
            (72, 4, "terminal", "the till that is locked; zero: all of the principal"),
            (76, 4, "reserved", "zero"),
        ],
    ),
    ("BATCH_EXTEND, EXTEND, EXPIRE", &[(64, 8, "expires", "the new end, milliseconds since 1970")]),
    (
        "REPLACE, REPLACEMENT, TRANSFER, RECEIVE",
        &[
            (64, 8, "other", "the other card"),
            (72, 16, "order", "in which order the one took the other's place; zero of TRANSFER and RECEIVE"),
            (
                88,
                8,
                "link",
                "of REPLACE the order's word before; of REPLACEMENT and RECEIVE where the entry before stands; else zero",
            ),
            (
                96,
                8,
                "end",
                "of REPLACEMENT the end of validity it gave the card, zero is never; all ones: none given; all ones of the others",
            ),
            (104, 0, "value", "of a card that is used in parts: what HOLD has, from its amount on"),
        ],
    ),
    ("RESTOCK", &[(64, 16, "reference", "the supplier's document, of the caller's choosing")]),
    (
        "BATCH_ACTIVATE and BATCH_DEACTIVATE of a range of rows; without a tail they are about all",
        &[(64, 8, "from", "the first row"), (72, 8, "rows", "how many")],
    ),
    (
        "SELL, plain form",
        &[
            (64, 16, "order", "the order's id"),
            (80, 4, "count", "cards sold"),
            (84, 4, "ranges", "how many row ranges follow"),
            (88, 4, "moved", "how many single cards follow the ranges"),
            (92, 4, "form", "0"),
            (96, 16, "range", "first card, number of rows: rows never moved before; repeated"),
            (112, 16, "moved card", "card, its word before; repeated"),
        ],
    ),
    (
        "POST",
        &[
            (64, 16, "document", "the id of the document it rests on"),
            (80, 4, "legs", "how many follow, at most 64"),
            (84, 4, "note bytes", "length of the note behind the legs, at most 200"),
            (88, 4, "account", "LEG, 32 bytes, repeated: the account"),
            (92, 4, "reserved", "zero"),
            (96, 8, "amount", "minor units, signed: positive comes in, negative goes out"),
            (104, 8, "balance", "of the account after the whole entry, signed"),
            (112, 8, "prev", "the account's entry with money before this one; zero is none"),
            (120, 0, "note", "UTF-8, zero-padded to 8"),
        ],
    ),
    (
        "LIMIT_CROSSED",
        &[
            (64, 8, "subject kind", "who crossed the limit: 1 account, 2 address, 3 till, 4 principal"),
            (72, 8, "subject", "its number; of a till, the merchant's in the upper 32 bits"),
            (80, 8, "units", "what is in the window with the entry that crossed it, which stands beside it"),
        ],
    ),
    (
        "SELL, EXPORT, RESERVE, CONFIRM, CANCEL, RESERVE_TIMEOUT, REALLOC, RETURN, full form",
        &[
            (64, 16, "order", "the order's id"),
            (80, 4, "count", "cards moved"),
            (84, 4, "runs", "how many runs of rows follow"),
            (88, 2, "lines", "how many lines follow the runs"),
            (90, 2, "legs", "how many legs follow the lines"),
            (92, 4, "form", "1; 3 if the codes are not delivered, or of a RETURN were never seen"),
            (96, 4, "account", "whose purchase it is, or zero"),
            (
                100,
                4,
                "validity",
                "of RESERVE: for how many seconds its cards had to be valid still; else zero",
            ),
            (104, 8, "address", "a keyed hash of the buyer's address, or zero"),
            (
                112,
                8,
                "moment",
                "of RESERVE: until when it is to be paid; of CANCEL and RESERVE_TIMEOUT: when it was reserved; milliseconds since 1970",
            ),
            (
                120,
                8,
                "prev",
                "the order's word before: position (48 bits), fetched (1 bit), state (4 bits); zero for its first entry",
            ),
            (
                128,
                24,
                "run",
                "first card, number of rows, the word that each of them had; repeated. Last, uses of cards that are sold many times: the card, the highest bit with the last entry about an order that had one before in 8-byte units, the card's word then",
            ),
            (152, 16, "line", "product u32, count u32, face value asked for or the lowest i64; repeated"),
            (
                168,
                32,
                "leg",
                "LEG, as in POST: account, amount, balance afterwards, the account's last entry before (both zero of RESERVE, which moves nothing); repeated",
            ),
        ],
    ),
    (
        "REVEAL",
        &[
            (64, 16, "order", "the order's id"),
            (80, 4, "from", "the first card given out, counted in the order"),
            (84, 4, "count", "how many"),
            (
                88,
                8,
                "prev",
                "only of the first of an order that was sold without its codes: the order's word before",
            ),
        ],
    ),
    (
        "PRODUCT_PUT, PRINCIPAL_PUT, TENANT_PUT, TENANT_CONTROL, PROPOSE, IMPORT, ACCOUNT_PUT, LIMIT_PUT, EXCEPTION_RESOLVE",
        &[
            (64, 1, "version", "of the encoding that follows: 1"),
            (65, 3, "reserved", "zero"),
            (68, 4, "bytes", "length of the encoding"),
            (
                72,
                0,
                "encoding",
                "rkyv 0.8: little-endian, unaligned, 32-bit relative pointers; zero-padded to 8",
            ),
        ],
    ),
];
