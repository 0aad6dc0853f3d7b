//! How single values lie on the wire, and the one description they and the documents share.
//!
//! A type that travels says once which fields it has, in which order and what they mean
//! (`wire!`); encoder, decoder, the tables of `docs/wire-protocol.md` and the field names of the
//! golden files all come from that list, so they cannot drift apart. Values lie one after the other
//! without padding, integers little-endian.

use bytes::{BufMut, BytesMut};
use kami_engine::Lsn;
use kami_engine::{
    AccountId, AccountKind, BatchId, CardKind, CardRef, ChannelId, DocumentId, Flags, Grounds, Leg,
    Lifecycle, LimitAction, LimitId, Line, MerchantId, OrderId, OrderLine, OrderState, PrincipalId,
    ProductId, ProposalId, RequestId, Role, StatementLine, TenantId, TerminalId, ValidFrom, record::Kind,
};

/// A body that is not what its opcode says. Names the field, never a value of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame's field is not well formed field=`{field}`")]
pub struct Malformed {
    /// The field that ends too early or holds what it may not.
    pub field: &'static str,
}

/// One field of a layout, for the document's tables.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name, in the documents and in golden files.
    pub name: &'static str,
    /// Its type: `u8` … `u128`, `i64`, `type[n]`, `bytes8`, `text8`, `list8 of …`, or the name of another layout.
    pub kind: &'static str,
    /// One sentence.
    pub meaning: &'static str,
}

/// The unread rest of a body.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    field: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes, field: "" }
    }

    /// Reads the value of the field `name`.
    pub(crate) fn field<T: Wire<'a>>(&mut self, name: &'static str) -> Result<T, Malformed> {
        self.field = name;
        T::take(self)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(self.malformed())?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(self.malformed())?;
        self.rest = rest;
        Ok(*taken)
    }

    /// What is left, without reading it.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may follow the last field.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed { field: "end of frame" }) }
    }

    /// The error for the field being read.
    pub(crate) const fn malformed(&self) -> Malformed {
        Malformed { field: self.field }
    }
}

// The rest of a body may hold codes.
impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes…", self.rest.len())
    }
}

/// A value with a fixed place on the wire.
pub(crate) trait Wire<'a>: Sized {
    /// The type's name in the document.
    const TYPE: &'static str;
    /// The fields, if it is made of several.
    const FIELDS: &'static [Field] = &[];
    fn put(&self, out: &mut BytesMut);
    fn take(reader: &mut Reader<'a>) -> Result<Self, Malformed>;
}

/// Bodies that are long and rare stand behind a pointer, so that the frequent ones are moved about cheaply.
impl<'a, T: Wire<'a>> Wire<'a> for Box<T> {
    const TYPE: &'static str = T::TYPE;
    const FIELDS: &'static [Field] = T::FIELDS;
    fn put(&self, out: &mut BytesMut) {
        (**self).put(out);
    }
    fn take(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        T::take(reader).map(Box::new)
    }
}

/// Declares the layout of a type of several fields.
macro_rules! wire {
    ($type:ty: $name:literal { $($field:ident: $kind:ty, $meaning:literal;)* }) => {
        impl<'a> $crate::frame::wire::Wire<'a> for $type {
            const TYPE: &'static str = $name;
            const FIELDS: &'static [$crate::frame::wire::Field] = &[$($crate::frame::wire::Field {
                name: stringify!($field),
                kind: <$kind as $crate::frame::wire::Wire<'static>>::TYPE,
                meaning: $meaning,
            },)*];
            #[inline]
            #[allow(unused_variables)]
            fn put(&self, out: &mut bytes::BytesMut) {
                $($crate::frame::wire::Wire::put(&self.$field, out);)*
            }
            #[inline]
            #[allow(unused_variables)]
            fn take(reader: &mut $crate::frame::wire::Reader<'a>)
                -> Result<Self, $crate::frame::wire::Malformed>
            {
                Ok(Self { $($field: reader.field(stringify!($field))?,)* })
            }
        }
    };
}
pub(crate) use wire;

macro_rules! integers {
    ($($int:ident $put:ident;)+) => { $(
        impl Wire<'_> for $int {
            const TYPE: &'static str = stringify!($int);
            #[inline]
            fn put(&self, out: &mut BytesMut) { out.$put(*self) }
            #[inline]
            fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
                reader.array().map($int::from_le_bytes)
            }
        }
    )+ };
}

integers! {
    u8 put_u8;
    u16 put_u16_le;
    i16 put_i16_le;
    u32 put_u32_le;
    u64 put_u64_le;
    i32 put_i32_le;
    i64 put_i64_le;
    u128 put_u128_le;
}

/// Newtypes over an integer travel as the integer.
macro_rules! newtypes {
    ($($type:ident($int:ty);)+) => { $(
        impl Wire<'_> for $type {
            const TYPE: &'static str = <$int as Wire<'static>>::TYPE;
            #[inline]
            fn put(&self, out: &mut BytesMut) { self.0.put(out) }
            #[inline]
            fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> { <$int>::take(reader).map($type) }
        }
    )+ };
}

newtypes! {
    TenantId(u16);
    PrincipalId(u32);
    TerminalId(u32);
    MerchantId(u32);
    ChannelId(u16);
    ProductId(u32);
    BatchId(u32);
    AccountId(u32);
    LimitId(u32);
    RequestId(u128);
}

wire!(Grounds: "GROUNDS" {
    approval: Option<ProposalId>, "the proposal under which it is done; 0: none. Of requests only ORDER_FETCH names one";
    approver: Option<PrincipalId>, "who approved that; in a request 0";
    why: String, "the reason, at most 255 bytes of UTF-8, no control characters; empty: none was given";
});

/// Without a reason and an approval there are none.
impl Wire<'_> for Option<Box<Grounds>> {
    const TYPE: &'static str = <Grounds as Wire<'static>>::TYPE;
    const FIELDS: &'static [Field] = <Grounds as Wire<'static>>::FIELDS;
    fn put(&self, out: &mut BytesMut) {
        match self {
            Some(grounds) => grounds.put(out),
            None => Grounds::default().put(out),
        }
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let grounds = Grounds::take(reader)?;
        Ok((grounds != Grounds::default()).then(|| Box::new(grounds)))
    }
}

/// Numbers that stand for names travel as the number; one without a name is malformed.
macro_rules! numbered {
    ($($type:ty: $int:ty, $number:expr, $from:expr;)+) => { $(
        impl Wire<'_> for $type {
            const TYPE: &'static str = <$int as Wire<'static>>::TYPE;
            #[inline]
            fn put(&self, out: &mut BytesMut) {
                let number: fn($type) -> $int = $number;
                number(*self).put(out);
            }
            #[inline]
            fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
                let from: fn($int) -> Option<$type> = $from;
                from(<$int>::take(reader)?).ok_or(reader.malformed())
            }
        }
    )+ };
}

numbered! {
    bool: u8, |flag| flag.into(), |number| (number < 2).then_some(number == 1);
    Role: u8, |role| role as u8, Role::from_number;
    CardKind: u8, |kind| kind as u8, CardKind::from_number;
    AccountKind: u8, |kind| kind as u8, AccountKind::from_number;
    LimitAction: u8, |action| action as u8, LimitAction::from_number;
    ValidFrom: u8, |rule| rule as u8, ValidFrom::from_number;
    Lifecycle: u8, |lifecycle| lifecycle as u8, Lifecycle::from_number;
    Kind: u8, Kind::number, Kind::from_number;
    Flags: u16, Flags::bits, Flags::from_bits;
    CardRef: u64, CardRef::to_bits, |bits| Some(CardRef::from_bits(bits));
    // Batches are counted from 1, so no card stands at zero.
    Option<CardRef>: u64, |card| card.map_or(0, CardRef::to_bits),
        |bits| Some((bits != 0).then_some(CardRef::from_bits(bits)));
    Lsn: u64, Lsn::bytes, Lsn::from_bytes;
    // Zero is how a report says that there is no order, so an order may not be called that.
    OrderId: u128, |order| order.0, |number| (number != 0).then_some(OrderId(number));
    DocumentId: u128, |document| document.0, |number| (number != 0).then_some(DocumentId(number));
    ProposalId: u128, |proposal| proposal.0, |number| (number != 0).then_some(ProposalId(number));
    Option<ProposalId>: u128, |proposal| proposal.map_or(0, |proposal| proposal.0),
        |number| Some((number != 0).then_some(ProposalId(number)));
    Option<OrderId>: u128, |order| order.map_or(0, |order| order.0),
        |number| Some((number != 0).then_some(OrderId(number)));
    // No number is free to mean "none" at the low end, so the highest does.
    Option<ProductId>: u32, |product| product.map_or(u32::MAX, |product| product.0),
        |number| Some((number != u32::MAX).then_some(ProductId(number)));
    Option<BatchId>: u32, |batch| batch.map_or(u32::MAX, |batch| batch.0),
        |number| Some((number != u32::MAX).then_some(BatchId(number)));
    OrderState: u8, |state| state as u8, OrderState::from_number;
    Option<PrincipalId>: u32, |principal| principal.map_or(0, |principal| principal.0),
        |number| Some((number != 0).then_some(PrincipalId(number)));
    Option<OrderState>: u8, |state| state.map_or(u8::MAX, |state| state as u8), |number| match number {
        u8::MAX => Some(None),
        number => OrderState::from_number(number).map(Some),
    };
    Option<AccountId>: u32, |account| account.map_or(0, |account| account.0),
        |number| Some((number != 0).then_some(AccountId(number)));
    Option<Lsn>: u64, |lsn| lsn.map_or(0, Lsn::bytes),
        |bytes| if bytes == 0 { Some(None) } else { Lsn::from_bytes(bytes).map(Some) };
}

/// Money that may be absent: `i64::MIN` is no amount.
impl Wire<'_> for Option<i64> {
    const TYPE: &'static str = "i64";
    #[inline]
    fn put(&self, out: &mut BytesMut) {
        self.unwrap_or(i64::MIN).put(out);
    }
    #[inline]
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        i64::take(reader).map(|money| (money != i64::MIN).then_some(money))
    }
}

/// A length of one byte, then so many bytes.
impl<'a> Wire<'a> for &'a [u8] {
    const TYPE: &'static str = "bytes8";
    #[inline]
    fn put(&self, out: &mut BytesMut) {
        // Callers check lengths; a longer value is cut rather than written with a wrong length.
        let length = self.len().min(usize::from(u8::MAX));
        out.put_u8(length as u8);
        out.extend_from_slice(&self[..length]);
    }
    #[inline]
    fn take(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let length = u8::take(reader)?;
        reader.bytes(length.into())
    }
}

/// A length of one byte, then so many bytes of UTF-8.
impl Wire<'_> for String {
    const TYPE: &'static str = "text8";
    fn put(&self, out: &mut BytesMut) {
        self.as_bytes().put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let bytes = <&[u8]>::take(reader)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| reader.malformed())
    }
}

/// A length of four bytes, then so many bytes. Its writer sees to it that the frame holds them.
impl Wire<'_> for Vec<u8> {
    const TYPE: &'static str = "bytes32";
    fn put(&self, out: &mut BytesMut) {
        (self.len() as u32).put(out);
        out.extend_from_slice(self);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let length = u32::take(reader)?;
        reader.bytes(length as usize).map(<[u8]>::to_vec)
    }
}

macro_rules! arrays {
    ($($item:ty, $count:literal, $name:literal;)+) => { $(
        impl Wire<'_> for [$item; $count] {
            const TYPE: &'static str = $name;
            fn put(&self, out: &mut BytesMut) { self.iter().for_each(|item| item.put(out)); }
            fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
                let mut items = [<$item>::default(); $count];
                for item in &mut items { *item = Wire::take(reader)?; }
                Ok(items)
            }
        }
    )+ };
}

arrays! {
    u8, 3, "u8[3]";
    u8, 32, "u8[32]";
    u64, 8, "u64[8]";
}

macro_rules! lists {
    ($($item:ty, $name:literal;)+) => { $(
        /// A count of one byte, then so many items.
        impl Wire<'_> for Vec<$item> {
            const TYPE: &'static str = $name;
            fn put(&self, out: &mut BytesMut) {
                // Callers check lengths, as with `bytes8`.
                let length = self.len().min(usize::from(u8::MAX));
                out.put_u8(length as u8);
                self[..length].iter().for_each(|item| item.put(out));
            }
            fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
                let length = u8::take(reader)?;
                (0..length).map(|_| Wire::take(reader)).collect()
            }
        }
    )+ };
}

lists! {
    ProductId, "list8 of u32";
    MerchantId, "list8 of u32";
    u32, "list8 of u32";
    Leg, "list8 of LEG";
    Line, "list8 of LINE";
    StatementLine, "list8 of STATEMENT_LINE";
    OrderLine, "list8 of ORDER_LINE";
}

/// A code or a PIN as typed: travels as `bytes8`, and no trace shows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret<'a>(pub &'a [u8]);

impl std::fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl<'a> Wire<'a> for Secret<'a> {
    const TYPE: &'static str = "bytes8";
    #[inline]
    fn put(&self, out: &mut BytesMut) {
        self.0.put(out);
    }
    #[inline]
    fn take(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Wire::take(reader).map(Secret)
    }
}

/// An empty one is none.
impl<'a> Wire<'a> for Option<Secret<'a>> {
    const TYPE: &'static str = "bytes8";
    #[inline]
    fn put(&self, out: &mut BytesMut) {
        self.unwrap_or(Secret(&[])).put(out);
    }
    #[inline]
    fn take(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Secret::take(reader).map(|secret| (!secret.0.is_empty()).then_some(secret))
    }
}
