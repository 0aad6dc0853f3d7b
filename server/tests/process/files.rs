//! Card files as they should not be: nothing is imported, and the person is told why, line by line.

use crate::store::Home;

#[test]
fn bad_card_files_import_nothing() {
    let home = Home::new();
    let server = home.serve();
    server.json(&["product", "add", "tea", "--face", "5", "--currency", "CNY"]);
    home.file("present.txt", "PRESENT-1\nPRESENT-2\n");
    server.json(&["import", "present.txt", "--product", "tea"]);

    let import = |name: &str| server.run(&["import", name, "--product", "tea", "--report", "report.csv"]);
    let report = || std::fs::read_to_string(home.path("report.csv")).unwrap();
    home.file("empty.csv", "");
    import("empty.csv").fails(3, "the card file is empty");
    home.file("blank.csv", "\r\n  \r\n");
    import("blank.csv").fails(3, "the card file is empty");
    home.file("header.csv", "code,pin\n");
    import("header.csv").fails(3, "no cards");
    home.file("binary.csv", [7, 0, 1, 2, 255].repeat(1000));
    import("binary.csv").fails(3, "binary file");
    home.file("sheet.xlsx", "PK\u{3}\u{4}\u{14}");
    import("sheet.xlsx").fails(3, "save it as CSV");
    home.file("utf16.csv", b"\xff\xfeA\0B\0");
    import("utf16.csv").fails(3, "UTF-16");
    import("missing.csv").fails(6, "No such file");
    import(".").fails(6, "directory");
    import("-").fails(2, "standard input");

    let mut long = "x".repeat(10 << 20);
    long.push_str("\nGOOD-0001\n");
    home.file("long.csv", long);
    import("long.csv").fails(3, "1 bad lines of 2");
    assert_eq!(report(), "line,problem\n1,\"it is longer than 4096 bytes\"\n");

    home.file("mixed.csv", "code,face\nGOOD-0001,5\nBAD,5\nGOOD-0002,free\n\nGOOD-0001,5\n\"GOOD-0003,5\n");
    let ended = import("mixed.csv");
    ended.fails(3, "4 bad lines of 5");
    assert!(ended.err.contains("line 6: it has the same code as line 2"), "{ended:?}");
    assert!(!ended.err.contains("GOOD"), "codes stay out of errors: {ended:?}");
    assert_eq!(report().lines().count(), 5);
    assert!(!report().contains("GOOD"));

    home.file("many.txt", "ab\n".repeat(100));
    let ended = import("many.txt");
    assert_eq!(ended.err.lines().filter(|line| line.starts_with("line ")).count(), 20);
    assert_eq!(report().lines().count(), 101);

    home.file("known.txt", "NEW-0001\n\nPRESENT-2\n");
    let ended = import("known.txt");
    ended.fails(3, "is there already");
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
