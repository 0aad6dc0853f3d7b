//! Card files as they should not be: nothing is imported, and the person is told why, line by line.

use crate::store::Home;

#[test]
fn bad_card_files_import_nothing() {
    let home = Home::new();
    let server = home.serve();
    server.stock("tea", "5", "PRESENT-1\nPRESENT-2\n");

    let import = |name: &str| server.run(&["import", name, "--product", "tea", "--report", "report.csv"]);
    let report = || std::fs::read_to_string(home.path("report.csv")).unwrap();
    // The only copy there may be: a report never goes over it, under whatever name.
    home.file("only.csv", "code\nONLY-0001\n");
    std::os::unix::fs::symlink(home.path("only.csv"), home.path("link.csv")).unwrap();
    for name in ["only.csv", "./only.csv", "link.csv"] {
        let onto = ["import", "only.csv", "--product", "tea", "--report", name];
        server.run(&onto).fails(2, "would overwrite the card file");
    }
    assert_eq!(std::fs::read_to_string(home.path("only.csv")).unwrap(), "code\nONLY-0001\n");
    home.file("empty.csv", "");
    import("empty.csv").fails(3, "the card file is empty");
    home.file("blank.csv", "\r\n  \r\n");
    import("blank.csv").fails(3, "the card file is empty");
    home.file("header.csv", "code,pin\n");
    import("header.csv").fails(3, "no cards");
    home.file("binary.csv", [7, 0, 1, 2, 255].repeat(1000));
    import("binary.csv").fails(3, "binary file");
    home.file("sheet.xlsx", "PK\u{3}\u{4}\u{14}");
    import("sheet.xlsx").fails(3, "no .xlsx workbook");
    home.file("old.xls", b"\xd0\xcf\x11\xe0");
    import("old.xls").fails(3, "save it as .xlsx");
    home.file("title.csv", "Gift cards\ncode,pin\nGOOD-0001,1\nGOOD-0002,2\n");
    import("title.csv").fails(3, "remove the lines before it");
    home.file("parted.txt", "GOOD-0001 1234\nGOOD-0002 5678\n");
    let parted = import("parted.txt");
    parted.fails(3, "2 bad lines among 2 lines");
    assert!(parted.err.contains("it has a space in it: say --separator none"), "{parted:?}");
    let said = ["import", "parted.txt", "--product", "tea", "--dry-run", "--separator"];
    let said = |name| server.json(&[said.as_slice(), &[name]].concat());
    assert_eq!((&said("space")["cards"], &said("none")["cards"]), (&2.into(), &2.into()));
    rustix::fs::mkfifoat(rustix::fs::CWD, home.path("pipe.csv"), rustix::fs::Mode::RWXU).unwrap();
    import("pipe.csv").fails(6, "save it as a file");
    import("missing.csv").fails(6, "No such file");
    import(".").fails(6, "directory");
    import("-").fails(2, "standard input");

    let mut long = "x".repeat(10 << 20);
    long.push_str("\nGOOD-0001\n");
    home.file("long.csv", long);
    import("long.csv").fails(3, "1 bad line among 2 lines");
    assert_eq!(report(), "\u{feff}line,reason,code\n1,\"it is longer than 4096 bytes\",\"\"\n");

    home.file("mixed.csv", "code,face\nGOOD-0001,5\nBAD,5\nGOOD-0002,free\n\nGOOD-0001,5\n\"GOOD-0003,5\n");
    let ended = import("mixed.csv");
    ended.fails(3, "nothing was imported: 3 bad lines and 1 duplicate among 5 lines");
    assert!(ended.err.contains("line 6: it has the same code as line 2"), "{ended:?}");
    assert!(!ended.err.contains("GOOD"), "codes stay out of errors: {ended:?}");
    assert_eq!(report().lines().count(), 5);
    assert!(
        !report().contains("GOOD") && report().contains("6,\"it has the same code as line 2\",\"****0001\"")
    );

    home.file("many.txt", "ab\n".repeat(100));
    let ended = import("many.txt");
    assert_eq!(ended.err.lines().filter(|line| line.starts_with("line ")).count(), 20);
    assert_eq!(report().lines().count(), 101);

    home.file("known.txt", "NEW-0001\n\nPRESENT-2\n");
    let ended = import("known.txt");
    ended.fails(3, "1 duplicate among 2 lines");
    assert!(ended.err.contains("line 3: its code is there already, in batch 1"), "{ended:?}");

    home.file("good.txt", "GOOD-0001\n");
    server.run(&["import", "good.txt", "--product", "milk"]).fails(3, "no product `milk`");
    server.run(&["import", "good.txt", "--product", "tea", "--expires", "2001-01-01"]).fails(3, "EXPIRED");
    server.run(&["import", "good.txt", "--product", "tea", "--face", "x"]).fails(2, "--face");
    assert_eq!(server.json(&["stats"])["cards"], 2, "nothing of all that came in");
    server.json(&["import", "good.txt", "--product", "tea"]);
    assert_eq!(server.json(&["stats"])["cards"], 3);
    assert_eq!(server.json(&["query", "GOOD-0001"])["state"], "AVAILABLE");
    server.run(&["query", "NEW-0001"]).fails(3, "NOT_FOUND");
    server.run(&["query", "-"]).fails(2, "standard input");
}

#[test]
fn what_is_not_imported_can_be_left_out_and_is_reported() {
    let home = Home::new();
    let server = home.serve();
    server.stock("tea", "5", "PRESENT-1\nPRESENT-2\n");
    // In GB18030, with columns of other names, a code of full width, one twice, one that is known, one that
    // is none.
    let text = "序号,到期日,兑换码\r\n1,2099-12-31,ＴＥＡ－0001\r\n2,,TEA-0002\r\n3,,TEA-0001\r\n4,,PRESENT-2\r\n\
                5,,6.22609E+15\r\n6,,TEA-0003\r\n";
    home.file("list.csv", encoding_rs::GB18030.encode(text).0);
    let arguments = ["import", "list.csv", "--product", "tea", "--report", "report.csv"];
    let with = |more: &[&'static str]| [arguments.as_slice(), more].concat();
    let report = || std::fs::read_to_string(home.path("report.csv")).unwrap();
    let lines = [
        "\u{feff}line,reason,code",
        "4,\"it has the same code as line 2\",\"****0001\"",
        "5,\"its code is there already, in batch 1\",\"****NT-2\"",
        "6,\"its code was turned into a rounded number by a spreadsheet: make the column text and enter it \
         anew\",\"****E+15\"",
    ];

    let rejected = server.run(&with(&[]));
    rejected.fails(3, "nothing was imported: 1 bad line and 2 duplicates among 6 lines");
    assert!(rejected.err.contains("read as gb18030") && rejected.err.contains("not imported: 序号"));
    assert_eq!(report().lines().collect::<Vec<_>>(), lines);
    server.run(&with(&["--dry-run"])).fails(3, "nothing would be imported: 1 bad line and 2 duplicates");
    server.run(&with(&["--duplicates", "skip"])).fails(3, "1 bad line and 2 duplicates");
    server.run(&with(&["--bad-lines", "skip"])).fails(3, "1 bad line and 2 duplicates");
    let skip: Vec<&str> = with(&["--duplicates", "skip", "--bad-lines", "skip"]);
    let dry = server.json(&[skip.as_slice(), &["--dry-run"]].concat());
    assert_eq!((&dry["cards"], &dry["dry_run"], &dry["lines"]), (&3.into(), &true.into(), &6.into()));
    assert_eq!(server.json(&["stats"])["cards"], 2, "nothing of all that came in");

    let done = server.json(&skip);
    assert_eq!((&done["cards"], &done["duplicates"], &done["bad_lines"]), (&3.into(), &2.into(), &1.into()));
    assert_eq!(report().lines().collect::<Vec<_>>(), lines);
    let again = server.json(&skip);
    assert_eq!((&again["replayed"], &again["cards"], &again["id"]), (&true.into(), &3.into(), &done["id"]));
    assert_eq!(server.json(&["query", "TEA-0001"])["expires_ms"].as_u64().unwrap() / 1_000_000_000, 4102);
    server.run(&["query", "PRESENT-1"]);
    // Everything is there: there is nothing to skip to.
    let all = [skip.as_slice(), &["--label", "again"]].concat();
    server.run(&all).fails(3, "1 bad line and 5 duplicates among 6 lines");
    assert_eq!(server.json(&["stats"])["cards"], 5);
    let ended = server.stop();
    assert_eq!(ended.code, Some(0));
    let verified = home.run(&["verify", "--data", "kami-data", "--json"]).json();
    assert_eq!((&verified["whole"], &verified["cards"]), (&true.into(), &5.into()));
}
