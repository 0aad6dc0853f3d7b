//! Files as suppliers send them, and as they should not be.

use proptest::prelude::*;

use super::*;

fn open(
    name: &str,
    bytes: &[u8],
    options: &ReadOptions,
) -> (tempfile::TempDir, Result<CardFile, CardFileError>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let file = CardFile::open(&path, &ReadOptions { currency: *b"CNY", ..options.clone() });
    (dir, file)
}

fn shown(file: &CardFile) -> String {
    let mut shown = Vec::new();
    let mut cards = file.cards().unwrap();
    while let Some(Line { number, card, .. }) = cards.next().unwrap() {
        shown.push(match card {
            Err(BadLine(wrong)) => format!("{number}!{wrong}"),
            Ok(card) => {
                let mut text = format!("{number}:{}", String::from_utf8_lossy(card.code.as_bytes()));
                text += &card.pin.map_or(String::new(), |pin| format!("/{}", String::from_utf8_lossy(pin)));
                text += &card.face.map_or(String::new(), |face| format!("/{face}"));
                text + if card.expires_ms > 0 { "/until" } else { "" }
            }
        });
    }
    shown.join(" ")
}

/// What a file holds: `line:code/pin/face/has expiry`, or `line!reason`.
fn read_with(name: &str, bytes: impl AsRef<[u8]>, options: &ReadOptions) -> String {
    let (_dir, file) = open(name, bytes.as_ref(), options);
    match file {
        Ok(file) => shown(&file),
        Err(failure) => failure.to_string().split(" path=").next().unwrap().to_owned(),
    }
}

fn read(name: &str, bytes: impl AsRef<[u8]>) -> String {
    read_with(name, bytes, &ReadOptions::default())
}

fn gb18030(text: &str) -> Vec<u8> {
    encoding_rs::GB18030.encode(text).0.into_owned()
}

#[test]
fn files_as_suppliers_send_them() {
    for (name, bytes, expected) in [
        ("a.txt", "AAAA\nBBBB\n", "1:AAAA 2:BBBB"),
        ("a.txt", "\u{feff}AAAA\r\n\r\n BBBB ", "1:AAAA 3:BBBB"),
        ("a.txt", "AAAA\rBBBB\r\rCCCC", "1:AAAA 2:BBBB 4:CCCC"),
        ("a.txt", "AAAA,1\nBBBB,2\n", "1:AAAA/1 2:BBBB/2"),
        ("a.txt", "AAAA\t1\nBBBB\t2\n", "1:AAAA/1 2:BBBB/2"),
        ("a.txt", "AA-AA----1\nBB--BB-----2\n", "1:AA-AA/1 2:BB--BB/2"),
        // One cell in quotation marks is a cell in quotation marks.
        ("a.csv", "\"code\"\n\"AAAA\"\n\"BB\"\"BB\"\n", "2:AAAA 3:BB\"BB"),
        ("a.txt", "\"AAAA\"\n  \"BBBB\" \n", "1:AAAA 2:BBBB"),
        ("a.txt", "=\"0012345\"\n=\"0012346\"\n", "1:0012345 2:0012346"),
        ("a.csv", "AAAA\nBBBB", "1:AAAA 2:BBBB"),
        ("a.csv", "code\nAAAA\n", "2:AAAA"),
        ("a.csv", "AAAA,1234\nBBBB,5678\n", "1:AAAA/1234 2:BBBB/5678"),
        ("a.csv", "AAAA,1234,28.5,2099-12-31\n", "1:AAAA/1234/2850/until"),
        ("a.csv", "卡号,卡密\nAAAA,1234\n", "2:AAAA/1234"),
        ("a.csv", "卡密,面值\nAAAA,100\n", "2:AAAA/10000"),
        ("a.csv", "卡號,密碼,備註\nAAAA,1234,x\n", "2:AAAA/1234"),
        ("a.csv", "Card No.,Password\rAAAA,1234\r", "2:AAAA/1234"),
        ("a.csv", "序号,卡号（必填）,密　码\n1,AAAA,1234\n", "2:AAAA/1234"),
        ("a.csv", "\u{feff}卡号;密码;面值;有效期\r\nAAAA;1;5;2099/1/2\r\n", "2:AAAA/1/500/until"),
        ("a.csv", "\u{feff}卡号;密码;面值;有效期\r\nAAAA;1;5;2099/1/2 8:30\r\n", "2:AAAA/1/500/until"),
        ("a.csv", "卡号|面额|到期日\nAAAA|５０|2099年1月2日\n", "2:AAAA/5000/until"),
        ("a.csv", "Face,Note,Code\n,x,AAAA\n7,\"y, z\",\"BB\"\"BB\"\n", "2:AAAA 3:BB\"BB/700"),
        ("a.tsv", "code\tpin\nAAAA\t1\n", "2:AAAA/1"),
        ("a.tsv", "code\tnote\nAAAA\ta, b, c, d, e, f\n", "2:AAAA"),
        // Full width and what cannot be seen.
        ("a.csv", "ＡＢＣＤ－１２３４\n\u{200b}AB\u{200d}CD5\u{feff}\n", "1:ABCD-1234 2:ABCD5"),
        // A spreadsheet is told to leave a number alone.
        ("a.csv", "code,pin\n\"=\"\"0012345\"\"\",'0011\n=\"0012346\",1\n", "2:0012345/0011 3:0012346/1"),
        // A serial date, as a spreadsheet saves a cell that is no date.
        ("a.csv", "code,expires\nAAAA,46752\n", "2:AAAA/until"),
        ("a.csv", "123456789012345678901234567890\n", "1:123456789012345678901234567890"),
    ] {
        assert_eq!(read(name, bytes), expected, "{bytes:?}");
    }
}

#[test]
fn cells_in_quotation_marks_keep_the_line_numbers_right() {
    let text = "code,note,pin\r\nAAAA,\"two\r\nlines\",1\r\nBBBB,\"three\n\nlines\",2\nCCCC,x,3\n";
    assert_eq!(read("a.csv", text), "2:AAAA/1 4:BBBB/2 7:CCCC/3");
    // Whatever piece of the file the quotation marks fall on.
    let mut long = String::from("code,note\n");
    let mut expected = Vec::new();
    for n in 0..20_000 {
        long += &format!("CODE-{n:06},\"a\nb, \"\"c\"\"\"\n");
        expected.push(format!("{}:CODE-{n:06}", 2 + 2 * n));
    }
    assert!(read("a.csv", &long) == expected.join(" "));
    // An open one spoils its own line only.
    let open = "code,pin\n\"AAAA,1\nBBBB,2\n\"CCCC\",3\n";
    assert_eq!(read("a.csv", "code,pin\n\"AAAA,1\nBBBB,2\n"), "2!a quotation mark is left open 3:BBBB/2");
    let wrong = "2!its code has a line break in it; is a quotation mark left open?";
    assert!(read("a.csv", open).starts_with(wrong), "{}", read("a.csv", open));
    let far = format!("code,pin\n\"AAAA,1\n{}", "BBBB,2\n".repeat(1000));
    assert!(read("a.csv", far).starts_with("2!a quotation mark is left open 3:BBBB/2 4:BBBB/2"));
}

#[test]
fn encodings_are_found_out_or_said() {
    let text = "卡号,密码,备注\nAAAA,１２３４,你好\n";
    for bytes in [text.as_bytes().to_vec(), gb18030(text)] {
        assert_eq!(read("a.csv", bytes), "2:AAAA/１２３４");
    }
    // The same, far behind where anybody would look.
    let far = format!("卡号\n{}卡密一二\n", "AAAA\n".repeat(100_000));
    let (_dir, file) = open("a.csv", &gb18030(&far), &ReadOptions::default());
    let file = file.unwrap();
    assert_eq!(file.remark().as_deref(), Some("read as gb18030; --encoding says it otherwise"));
    assert!(shown(&file).ends_with(" 100002:卡密一二"));
    // UTF-16 with its mark, as some programs save text.
    let mut utf16 = vec![0xff, 0xfe];
    utf16.extend("code\tpin\r\nAAAA\t１\r\n".encode_utf16().flat_map(u16::to_le_bytes));
    assert_eq!(read("a.txt", &utf16), "2:AAAA/１");
    assert_eq!(read("a.csv", &utf16), "2:AAAA/１");
    // What is said counts: then one line that is not in it is one bad line.
    let said = ReadOptions { encoding: Some(UTF_8), ..ReadOptions::default() };
    let mixed = [b"AAAA\n".as_slice(), &gb18030("卡密一二"), b"\nBBBB\n"].concat();
    let wrong = "2!its code is not text in UTF-8; --encoding says another";
    assert_eq!(read_with("a.txt", &mixed, &said), format!("1:AAAA {wrong} 3:BBBB"));
    let big5 = encoding_rs::BIG5.encode("卡號\nAAAA\n").0.into_owned();
    let said = ReadOptions { encoding: Some(encoding_rs::BIG5), ..ReadOptions::default() };
    assert_eq!(read_with("a.txt", big5, &said), "2:AAAA");
}

#[test]
fn columns_are_what_is_said() {
    let columns =
        |names: &str| ReadOptions { columns: Some(Columns::parse(names).unwrap()), ..ReadOptions::default() };
    assert_eq!(read_with("a.txt", "1,AAAA,9\n2,BBBB,8\n", &columns("-,code,pin")), "1:AAAA/9 2:BBBB/8");
    assert_eq!(read_with("a.csv", "卡号,x\nAAAA,BBBB\n", &columns("pin,code")), "2:BBBB/AAAA");
    let short = read_with("a.csv", "AAAA,1\nBBBB,2\nCCCC\n", &columns("code,face"));
    assert_eq!(short, "1:AAAA/100 2:BBBB/200 3!it ends before its face value");
    // They are all of the columns: a line that has more is not what was said.
    let wrong = read_with("a.csv", "code,pin\nAAAA,1234\n", &columns("code"));
    assert_eq!(
        wrong,
        "line 1 has 2 cells parted by comma, and --columns names 1: write - for each that is not imported, or \
         say --separator"
    );
    assert_eq!(read_with("a.csv", "code,pin\nAAAA,1234\n", &columns("code,-")), "2:AAAA");
    assert_eq!(read_with("a.csv", "AAAA,,\nBBBB,,\n", &columns("code")), "1:AAAA 2:BBBB");
}

fn parted(name: &str) -> ReadOptions {
    ReadOptions { separator: Some(Form::parse(name).unwrap()), ..ReadOptions::default() }
}

#[test]
fn separators_and_headers_are_what_is_said() {
    assert_eq!(read_with("a.txt", "AA,AA\nBB;BB\n", &parted("none")), "1:AA,AA 2:BB;BB");
    assert_eq!(read_with("a.txt", "AA AA\nBB BB\n", &parted("none")), "1:AAAA 2:BBBB");
    assert_eq!(read_with("a.txt", "AAAA  1\n BBBB\t2\n", &parted("space")), "1:AAAA/1 2:BBBB/2");
    assert_eq!(read_with("a.txt", "AAAA:1\nBBBB:2\n", &parted("colon")), "1:AAAA/1 2:BBBB/2");
    assert_eq!(read_with("a.txt", "AAAA,1;\nBBBB,2;\n", &parted("comma")), "1:AAAA/1; 2:BBBB/2;");
    let header = |header| ReadOptions { header: Some(header), ..ReadOptions::default() };
    assert_eq!(read_with("a.txt", "card\nAAAA\n", &header(false)), "1:card 2:AAAA");
    let said = ReadOptions { columns: Some(Columns::parse("code").unwrap()), ..header(true) };
    assert_eq!(read_with("a.txt", "券的号码\nAAAA0001\n", &said), "2:AAAA0001");
    assert_eq!(Form::parse("dashes"), Ok(Form::Dashes));
    assert!(Form::parse(",").is_err());
}

/// What could be read in two ways, each of which makes other cards.
#[test]
fn what_is_not_clear_is_refused() {
    let named = |what: &str, name: &str| {
        format!(
            "the header's {what}. column has a name that is not known, `{name}`: rename it, or say with \
             --columns what it is, - for what is not imported"
        )
    };
    let behind = "its header seems to be line 2: remove the lines before it, or say --header no";
    let in_line = |what: &str| {
        format!("it has {what} in it: say --separator none if all of it is the code, or else what parts it")
    };
    let first = "its first line may be a header or a title: say --header yes, with --columns, if it is one, or \
                 --header no if it is a card";
    for (bytes, expected) in [
        // A title above the header, and below the cards.
        ("Gift cards 2026\ncode,pin\nAAAA,1\nBBBB,2\n", behind.to_owned()),
        ("礼品卡,\n卡号,密码\nAAAA,1\nBBBB,2\n", behind.to_owned()),
        ("Gift cards\ncode\nAAAA-1\nBBBB-2\n", behind.to_owned()),
        (
            "Gift cards 2026\nAAAA,1\nBBBB,2\n",
            "its first line has fewer cells than line 2: remove it if it is no card, or say --columns".to_owned(),
        ),
        ("券的号码\nAAAA-0001\nAAAA-0002\n", first.to_owned()),
        (
            "code,pin\nAAAA,1\n合计,1\nTotal:,1\ncode,pin\nBBBB,2\n",
            "2:AAAA/1 3!its code is the word for a sum, and no card 4!its code is the word for a sum, and no card \
             5!its code is the name of a column; is this a header that comes again? 6:BBBB/2"
                .to_owned(),
        ),
        // A code is no header because it looks like the name of a column with a remark.
        ("CODE(0001)\nCODE(0002)\n", "1:CODE(0001) 2:CODE(0002)".to_owned()),
        // Columns that would be left out.
        ("卡号,密吗\nAAAA,1\n", named("2", "密吗")),
        ("code,\nAAAA,1\n", named("2", "")),
        ("code,pin no 1\nAAAA,1\n", named("2", "…")),
        (
            "code,\"pin\nAAAA,1\nBBBB,2\nCCCC,3\n",
            "its first line, which says what the columns are, cannot be read: a quotation mark is left open"
                .to_owned(),
        ),
        // Cells that moved.
        (
            "code,note,pin\nAAAA,a,1\nBBBB,b, c,2\nCCCC,d,3\n",
            "2:AAAA/1 3!it has 4 cells parted by comma instead of 3; one with a comma in it needs quotation marks \
             4:CCCC/3"
                .to_owned(),
        ),
        // What may part a code from its PIN, and may not.
        ("AAAA 1\nBBBB\n", format!("1!{} 2:BBBB", in_line("a space"))),
        ("AAAA：1\nBBBB\n", format!("1!{} 2:BBBB", in_line("a colon"))),
        ("\"AA,AA\"\nBBBB\n", format!("1!{} 2:BBBB", in_line("a comma"))),
        ("\"AAAA\nBBBB\"\n", "1!a quotation mark is left open 2!a quotation mark is left open".to_owned()),
        (
            "AA,AA\nBB;BB\n",
            "its lines are not parted alike: of the first 2, 1 are parted by comma into 2 cells and the others are \
             not; remove what is no card, or say --separator"
                .to_owned(),
        ),
        (
            "AAAA,1;x\nBBBB,2;x\n",
            "its lines may be parted by comma or by semicolon; --separator says which".to_owned(),
        ),
    ] {
        for name in ["a.csv", "a.txt"] {
            assert_eq!(read(name, bytes), expected, "{name} {bytes:?}");
        }
    }
    // Far behind where anybody would look.
    let far = format!("{}AAAA,1\n", "BBBB-1\n".repeat(50));
    assert!(read("a.txt", far).ends_with(&format!(" 51!{}", in_line("a comma"))));
}

#[test]
fn what_is_no_text_is_no_pin_and_no_guess() {
    // A PIN that cannot be decoded is another than the one on the card.
    let said = ReadOptions { encoding: Some(UTF_8), ..ReadOptions::default() };
    let wrong = "2!its PIN is not text in UTF-8; --encoding says another";
    assert_eq!(read_with("a.csv", b"AAAA,1\nBBBB,\xb2\n", &said), format!("1:AAAA/1 {wrong}"));
    // Nothing that is known: the file, not one line, is the question.
    let says = "--encoding says what it is, and lines that are not in it are bad lines then";
    assert_eq!(
        read("a.txt", b"BBBB\nAAAA\xff\xff\n"),
        format!("it is neither UTF-8 nor GB18030: the first bytes that are not UTF-8 are in line 2; {says}")
    );
    // UTF-8 with something wrong in it is not another encoding, although it could be decoded as that.
    let mixed = ["卡号,密码\n".as_bytes(), b"AAAA,1\nBBBB,\xa3\xb2\n"].concat();
    assert_eq!(
        read("a.csv", &mixed),
        format!("most of it is UTF-8, but not all: the first bytes that are not UTF-8 are in line 3; {says}")
    );
    // A character that two blocks share.
    for shift in 0..3 {
        let text = format!("code,note\n{}\n", format!("AAAA{},你好\n", "x".repeat(shift)).repeat(40_000));
        let (_dir, file) = open("a.csv", text.as_bytes(), &ReadOptions::default());
        assert_eq!(file.unwrap().remark(), None);
    }
}

#[test]
fn bad_lines_are_told_apart_and_the_rest_goes_on() {
    for (name, bytes, expected) in [
        ("a.txt", "AAA\nBBBB\n", "1!a code has 4 to 128 bytes without spaces, this one has `3` 2:BBBB"),
        ("a.csv", "code,pin\nAAAA\nBBBB,1\n", "2!it has no PIN, or one of more than 255 bytes 3:BBBB/1"),
        (
            "a.csv",
            "code,face\nAAAA\nBBBB,x\n",
            "2!it ends before its face value 3!its face value is wrong: it is no amount, such as 28 or 28.50",
        ),
        ("a.csv", "code,expires\nAAAA,2001-01-01\n", "2!it has expired already"),
        (
            "a.csv",
            "code,expires\nAAAA,2001-01-01\nBBBB,2001-01-01\n",
            "2!it has expired already 3!it has expired already",
        ),
        ("a.csv", "code,pin\n,1\n", "2!it has no code"),
        (
            "a.csv",
            "code,pin\n6.22609E+15,1\nAAAA,6.22609E+15\n",
            "2!its code was turned into a rounded number by a spreadsheet: make the column text and enter it \
             anew 3!its PIN was turned into a rounded number by a spreadsheet: make the column text and enter \
             it anew",
        ),
        (
            "a.csv",
            "pin,face\n1,2\n",
            "the header names no column `code` (or 卡号 or 卡密); --columns says which it is",
        ),
        ("a.csv", "code,code\n1,2\n", "a column is named twice: the 2. is named like one before it"),
        ("a.csv", "", "the card file is empty"),
        ("a.csv", "\r\n \n", "the card file is empty"),
        ("a.csv", "\u{feff}\n", "the card file is empty"),
        ("a.csv", "AAAA\0BBBB", "this is a binary file, not a card file"),
        ("a.xls", "\u{0}", "this is a binary file, not a card file"),
    ] {
        assert_eq!(read(name, bytes), expected, "{bytes:?}");
    }
    let long = format!("{}\nBBBB\n", "x".repeat(10 << 20));
    assert_eq!(read("a.txt", &long), "1!it is longer than 4096 bytes 2:BBBB");
    assert_eq!(read("a.txt", long.replace('\n', "\r\n")), "1!it is longer than 4096 bytes 2:BBBB");
    assert_eq!(read("a.txt", "x".repeat(10 << 20)), "1!it is longer than 4096 bytes");
    let wide = format!("code,pin\n{}\nBBBB,1\n", "x,".repeat(100));
    assert_eq!(read("a.csv", wide), "2!it has more than 64 columns 3:BBBB/1");
    assert!(read("a.xlsx", "PK\u{3}\u{4}abc").starts_with("this is no .xlsx workbook that can be read"));
}

#[test]
fn a_worksheet_is_read_as_it_was_meant() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cards.xlsx");
    let mut book = rust_xlsxwriter::Workbook::new();
    let date = rust_xlsxwriter::Format::new().set_num_format("yyyy-mm-dd");
    let sheet = book.add_worksheet();
    for (column, name) in ["备注", "卡号", "密码", "面值", "有效期"].iter().enumerate() {
        sheet.write_string(0, column as u16, *name).unwrap();
    }
    // A code as text, as a number that is whole, and as one that is not any more.
    sheet.write_string(1, 1, "0012345678901234567890").unwrap();
    sheet.write_number(1, 2, 1234).unwrap();
    sheet.write_number(1, 3, 28.5).unwrap();
    let day = rust_xlsxwriter::ExcelDateTime::from_ymd(2099, 12, 31).unwrap();
    sheet.write_datetime_with_format(1, 4, &day, &date).unwrap();
    sheet.write_number(2, 1, 123_456_789_012_345_f64).unwrap();
    sheet.write_string(2, 2, "１１").unwrap();
    sheet.write_number(2, 4, 46752).unwrap();
    sheet.write_number(4, 1, 1_234_567_890_123_456_f64).unwrap();
    sheet.write_string(4, 2, "1").unwrap();
    sheet.write_datetime_with_format(5, 1, &day, &date).unwrap();
    sheet.write_string(6, 0, "no code here").unwrap();
    sheet.write_string(7, 1, "ＡＢＣＤ").unwrap();
    sheet.write_string(7, 2, "2").unwrap();
    sheet.write_string(7, 4, "2099/1/2").unwrap();
    // Numbers that are no codes, and formulas that came without a result.
    sheet.write_number(8, 1, 12345.5).unwrap();
    sheet.write_number(9, 1, -12345).unwrap();
    sheet.write_formula(10, 1, rust_xlsxwriter::Formula::new("=A1&B1").set_result("")).unwrap();
    sheet.write_formula(11, 1, rust_xlsxwriter::Formula::new("=A1+B1")).unwrap();
    sheet.write_string(12, 1, "BBBB").unwrap();
    sheet.write_formula(12, 2, rust_xlsxwriter::Formula::new("=A1+B1")).unwrap();
    sheet.write_string(13, 1, "CCCC").unwrap();
    sheet.write_formula(13, 2, rust_xlsxwriter::Formula::new("=A1&B1").set_result("123")).unwrap();
    book.add_worksheet().write_string(0, 0, "OTHER-SHEET").unwrap();
    book.save(&path).unwrap();
    let file = CardFile::open(&path, &ReadOptions { currency: *b"CNY", ..ReadOptions::default() }).unwrap();
    assert_eq!(file.ignored, ["备注"]);
    assert_eq!(file.remark().as_deref(), Some("only the first worksheet is imported: Sheet1"));
    let anew = "make the column text and enter it anew";
    let fraction = format!("!its code is a number below zero or with a fraction: {anew}");
    let formula = "is a formula whose result was not saved";
    let numbers = format!(
        "9{fraction} 10{fraction} 11!its code {formula}: {anew} 12!its code {formula}: {anew} 13!its PIN {formula}: {anew} 14:CCCC/123"
    );
    assert_eq!(
        shown(&file),
        format!(
            "2:0012345678901234567890/1234/2850/until 3:123456789012345/１１/until 5!its code is a number of more \
             than 15 digits, which a spreadsheet does not keep: {anew} 6!its code was taken for a date by a \
             spreadsheet: {anew} 7!it has no code 8:ABCD/2/until {numbers}"
        )
    );
}

/// A file of 100,000 cards of one kind, always of the same length.
fn cards_of(kind: char) -> String {
    (0..100_000).map(|n| format!("{kind}-{n:08}\n")).collect()
}

/// Puts `bytes` in the file's place, by writing to it or by renaming, with the time of change it had.
fn replace(path: &Path, bytes: &[u8], by_rename: bool) {
    let modified = std::fs::metadata(path).unwrap().modified().unwrap();
    let written = if by_rename { path.with_extension("new") } else { path.to_owned() };
    std::fs::write(&written, bytes).unwrap();
    std::fs::File::options().write(true).open(&written).unwrap().set_modified(modified).unwrap();
    std::fs::rename(&written, path).unwrap();
}

#[test]
fn two_files_are_never_mixed() {
    let one = cards_of('A');
    for by_rename in [false, true] {
        for behind in [0, 1, 50_000] {
            let (dir, file) = open("a.txt", one.as_bytes(), &ReadOptions::default());
            let file = file.unwrap();
            assert_eq!(file.survey(|_| {}).unwrap().cards, 100_000);
            let mut cards = file.cards().unwrap();
            for _ in 0..behind {
                assert!(cards.next().unwrap().unwrap().card.unwrap().code.as_bytes().starts_with(b"A-"));
            }
            replace(&dir.path().join("a.txt"), cards_of('B').as_bytes(), by_rename);
            let failed = loop {
                match cards.next() {
                    Err(error) => break error,
                    // What was read before, or is open still under no name, is what it was.
                    Ok(Some(line)) => {
                        let code = line.card.unwrap().code;
                        assert!(code.as_bytes().starts_with(b"A-"), "a card of the other file");
                    }
                    Ok(None) if by_rename => break io::Error::from(io::ErrorKind::InvalidData),
                    Ok(None) => panic!("nobody noticed"),
                }
            };
            assert_eq!(failed.kind(), io::ErrorKind::InvalidData);
            let again = file.cards().and_then(|mut cards| cards.next().map(|_| ()));
            assert_eq!(again.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
    // A file that grows or shrinks, wherever a block ends.
    for (length, then) in [(5, 10), (10, 5), (131_075, 131_080), (131_072, 131_073), (131_072, 0)] {
        let text =
            |length: usize| format!("{}\n", "AAAAAAAA\n".repeat(20_000)).into_bytes()[..length].to_vec();
        let (dir, file) = open("a.txt", &text(length), &ReadOptions::default());
        std::fs::write(dir.path().join("a.txt"), text(then)).unwrap();
        assert!(file.unwrap().survey(|_| {}).is_err(), "{length} {then}");
    }
}

#[test]
fn a_worksheet_is_of_the_file_that_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cards.xlsx");
    let save = |code: &str| {
        let mut book = rust_xlsxwriter::Workbook::new();
        book.add_worksheet().write_string(0, 0, code).unwrap();
        book.save(&path).unwrap();
    };
    save("AAAA-0001");
    let content = Content::read(&path, |_| {}).unwrap();
    save("BBBB-0002");
    assert!(Sheet::read(&content).is_err());
}

#[test]
fn what_unpacks_to_gigabytes_is_not_unpacked() {
    use zip::write::SimpleFileOptions;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bomb.xlsx");
    let mut book = rust_xlsxwriter::Workbook::new();
    book.add_worksheet().write_string(0, 0, "AAAA-0001").unwrap();
    let whole = book.save_to_buffer().unwrap();
    let with_texts = |texts: &mut dyn FnMut(&mut dyn io::Write)| {
        let mut archive = zip::ZipArchive::new(io::Cursor::new(&whole)).unwrap();
        let mut out = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        for at in 0..archive.len() {
            let mut entry = archive.by_index(at).unwrap();
            let name = entry.name().unwrap().into_owned();
            out.start_file(name.as_str(), SimpleFileOptions::default()).unwrap();
            if name.ends_with("sharedStrings.xml") {
                texts(&mut out);
            } else {
                io::copy(&mut entry, &mut out).unwrap();
            }
        }
        out.finish().unwrap();
        CardFile::open(&path, &ReadOptions::default()).err().map(|failure| failure.to_string())
    };
    let head = "<sst xmlns=\"http://schemas.openxmlformats.org/spreadsheetml/2006/main\"";
    let fine = with_texts(&mut |out| write!(out, "{head}><si><t>AAAA-0001</t></si></sst>").unwrap());
    assert_eq!(fine, None);
    let bomb = with_texts(&mut |out| {
        write!(out, "{head}>").unwrap();
        let many = "<si/>".repeat(1 << 18);
        (0..250).for_each(|_| out.write_all(many.as_bytes()).unwrap());
        out.write_all(b"</sst>").unwrap();
    });
    assert!(bomb.unwrap().contains("unpacks to more than"));
    assert!(std::fs::metadata(&path).unwrap().len() < 4 << 20);
    let lie = with_texts(&mut |out| {
        write!(out, "{head} count=\"1\" uniqueCount=\"99999999999999\"><si><t>AAAA-0001</t></si></sst>")
            .unwrap();
    });
    assert!(lie.unwrap().contains("unpacks to more than"));
}

/// Line ends, quotation marks, separators and broken characters in any order.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        &b"\n"[..],
        b"\r\n",
        b"\r",
        b"\"",
        b"\"\"",
        b",",
        b"\t",
        b" ",
        b"----",
        b"ABCD",
        b"1",
        "卡".as_bytes(),
        b"\xc4\xe3",
        b"\xff",
    ];
    let piece = prop_oneof![8 => prop::sample::select(pieces.to_vec()).prop_map(<[u8]>::to_vec),
        1 => (1..5000_usize).prop_map(|length| vec![b'x'; length])];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_is_in_a_file_every_line_is_told_of_once(
        bytes in anything(),
        separator in prop::sample::select(vec![None, Some("none"), Some("comma"), Some("space"), Some("dashes")]),
        said in any::<bool>(),
    ) {
        let options = ReadOptions {
            encoding: said.then_some(UTF_8),
            separator: separator.map(|name| Form::parse(name).unwrap()),
            ..ReadOptions::default()
        };
        let (_dir, file) = open("a.csv", &bytes, &options);
        let Ok(file) = file else { return Ok(()) };
        let mut numbers = Vec::new();
        let mut cards = file.cards().unwrap();
        while let Some(line) = cards.next().unwrap() {
            numbers.push((line.number, line.card.is_ok()));
        }
        prop_assert!(numbers.windows(2).all(|pair| pair[0].0 < pair[1].0), "{:?}", numbers);
        // Each line again: the same.
        let mut cards = file.cards().unwrap();
        for expected in &numbers {
            let line = cards.next().unwrap().unwrap();
            prop_assert_eq!((line.number, line.card.is_ok()), *expected);
            if line.card.is_ok() {
                cards.again();
                let line = cards.next().unwrap().unwrap();
                prop_assert_eq!((line.number, line.card.is_ok()), *expected);
            }
        }
        // Without quotation marks a record is a line.
        if separator == Some("none") || !bytes.contains(&b'"') {
            let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
            let mut lines = 0;
            let mut filled = Vec::new();
            let mut rest = text;
            while !rest.is_empty() {
                lines += 1;
                let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
                if !rest[..end].trim_ascii().is_empty() {
                    filled.push(lines);
                }
                let after = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
                rest = rest.get(end + after..).unwrap_or_default();
            }
            prop_assert_eq!(numbers.iter().map(|(number, _)| *number).collect::<Vec<u64>>(), filled);
        }
    }
}

/// What cards were elsewhere: `line:state/frozen/sold/redeemed/remaining/order`, or `line!reason`.
fn states(text: &str, spec: &kami_engine::ProductSpec) -> String {
    let options = ReadOptions { states: true, ..ReadOptions::default() };
    let (_dir, file) = open("a.csv", text.as_bytes(), &options);
    let mut file = match file {
        Ok(file) => file,
        Err(failure) => return failure.to_string().split(" path=").next().unwrap().to_owned(),
    };
    file.states = Some(NewCards::of(spec, spec.face, false));
    let mut shown = Vec::new();
    let mut cards = file.cards().unwrap();
    while let Some(Line { number, card, .. }) = cards.next().unwrap() {
        shown.push(match card {
            Err(BadLine(wrong)) => format!("{number}!{wrong}"),
            Ok(card) => {
                let origin = card.origin.unwrap();
                let mut text = format!("{number}:{}", origin.state.name());
                for (is, name) in [
                    (origin.frozen, "/frozen"),
                    (origin.sold_ms != 0, "/sold"),
                    (origin.redeemed_ms != 0, "/redeemed"),
                    (origin.order.is_some(), "/order"),
                    (card.expires_ms != 0, "/ends"),
                ] {
                    text += if is { name } else { "" };
                }
                text + &origin.remaining.map_or(String::new(), |left| format!("/{left}"))
            }
        });
    }
    shown.join(" ")
}

#[test]
fn cards_come_as_what_they_were() {
    let single = kami_engine::ProductSpec::single("coffee", *b"CNY", 2800);
    let lines = "卡号,状态,售出时间,核销时间,订单号,有效期\n\
                 AAAA,在库,,,,\n\
                 BBBB,已售,2026-01-02 10:00,,SO-1,2099-12-31\n\
                 CCCC,已核销,2026-01-02,2026-01-03,SO-1,\n\
                 DDDD,作废,,,,\nEEEE,冻结,,,,\nFFFF,冻结,2026-01-02,,,\n\
                 GGGG,过期,2020-01-02,,,2021-01-01\nHHHH,退回,2026-01-02,,,\n";
    assert_eq!(
        states(lines, &single),
        "2:AVAILABLE 3:SOLD/sold/order/ends 4:REDEEMED/sold/redeemed/order 5:VOIDED 6:AVAILABLE/frozen \
         7:SOLD/frozen/sold 8:SOLD/sold/ends 9:RETURNED/sold"
    );
    let mut gift = kami_engine::ProductSpec { kind: kami_engine::CardKind::StoredValue, ..single.clone() };
    let lines =
        "code,state,redeemed_at,remaining\nAAAA,sold,,\nBBBB,sold,2026-02-01,3.50\nCCCC,used,2026-02-01,0\n";
    assert_eq!(states(lines, &gift), "2:SOLD 3:SOLD/redeemed/350 4:REDEEMED/redeemed/0");
    gift.terms.value_max = 10_000;
    assert_eq!(
        states(lines, &gift),
        "2:SOLD 3:SOLD/redeemed/350 4:SOLD/redeemed/0",
        "it can be loaded again"
    );
    let wash = kami_engine::ProductSpec {
        kind: kami_engine::CardKind::MultiUse,
        terms: kami_engine::ProductTerms { uses: 10, ..kami_engine::ProductTerms::default() },
        ..single
    };
    assert_eq!(states("code,state,remaining\nAAAA,sold,3\n", &wash), "2:SOLD/3");
}

#[test]
fn what_cannot_have_been_is_a_bad_line() {
    let single = kami_engine::ProductSpec::single("coffee", *b"CNY", 2800);
    for (line, why) in [
        (",,,", "it has no state"),
        ("gone,,,", "its state is none of available, sold, redeemed, voided, returned, frozen and expired"),
        ("占用,,,", "it waits for its payment: settle that order first, and say sold or available"),
        (
            "available,2026-01-02,,",
            "it is said to be in stock, and has a sold_at, redeemed_at, remaining or order",
        ),
        ("available,,,SO-1", "it is said to be in stock, and has a sold_at, redeemed_at, remaining or order"),
        ("sold,2099-01-02,,", "its sold_at is in the future"),
        ("sold,2026-01-02,2026-01-03,", "it is said to be sold, and has a redeemed_at: is it redeemed?"),
        ("redeemed,2026-01-02,2026-01-01,", "its redeemed_at is before its sold_at"),
        ("expired,2026-01-02,,", "it is said to be expired, and its expiry is not a time that has passed"),
        ("void,,2026-01-02,", "it has a redeemed_at or remaining, and is said not to be used"),
    ] {
        let text = format!("code,state,sold_at,redeemed_at,order\nAAAA,{line}\n");
        assert_eq!(states(&text, &single), format!("2!{why}"));
    }
    let text = "code,state,remaining\nAAAA,sold,5\n";
    let why = "2!its remaining is wrong: a card that is used once has nothing that remains";
    assert_eq!(states(text, &single), why);
    let gift = kami_engine::ProductSpec { kind: kami_engine::CardKind::StoredValue, ..single.clone() };
    let text = "code,state,redeemed_at,remaining\nAAAA,sold,,99\nBBBB,sold,,0\nCCCC,redeemed,,1\nDDDD,sold,2026-02-01,\n";
    assert_eq!(
        states(text, &gift),
        "2!more remains of it than it can hold 3!nothing remains of it: is it redeemed? \
         4!it is said to be redeemed, and something remains of it 5!it was used, and does not say what remains"
    );
    let by_sale = kami_engine::ProductSpec {
        valid_days: 30,
        terms: kami_engine::ProductTerms {
            valid_from: kami_engine::ValidFrom::Sale,
            ..kami_engine::ProductTerms::default()
        },
        ..single
    };
    let text = "code,state,sold_at\nAAAA,sold,\nBBBB,sold,2026-02-01\nCCCC,available,\n";
    assert_eq!(
        states(text, &by_sale),
        "2!its validity counts from its sale: say sold_at or expires 3:SOLD/sold 4:AVAILABLE"
    );
    let none = states("code,pin\nAAAA,1\n", &by_sale);
    assert!(none.starts_with("no column says what the cards were"), "{none}");
}

/// Cards that were used elsewhere are not brought in as stock because nobody said --with-state.
#[test]
fn times_of_another_system_are_not_passed_over() {
    let refused = read("a.csv", "code,sold_at\nAAAA,2026-01-01\n");
    assert!(refused.starts_with("its header says when cards were sold or used elsewhere"), "{refused}");
    assert_eq!(read("a.csv", "code,状态,订单号\nAAAA,x,y\n"), "2:AAAA", "as before: a note");
}
