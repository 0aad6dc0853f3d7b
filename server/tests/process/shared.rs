//! A code that is sold many times, on the command line.

use crate::store::Home;

#[test]
fn each_sale_of_a_code_gives_one_use() {
    let home = Home::new();
    let server = home.serve();
    let add = ["product", "add", "vpn", "--face", "30", "--currency", "CNY", "--kind", "shared"];
    server.run(&add).refuses_usage("--uses");
    let product = server.json(&[&add[..], &["--uses", "2"]].concat());
    assert_eq!((&product["kind"], &product["uses"]), (&"shared".into(), &2.into()));
    home.file("vpn.txt", "code\nVPN-00000001\n");
    server.json(&["import", "vpn.txt", "--product", "vpn"]);
    for order in ["A-1", "A-2"] {
        let sold = server.json(&["sell", "vpn", "--count", "1", "--order", order]);
        assert_eq!(sold["codes"][0], "VPN-00000001", "{sold}");
        let again = server.json(&["order", order]);
        assert_eq!(again["codes"][0], "VPN-00000001", "{again}");
    }
    server.run(&["sell", "vpn", "--count", "1", "--order", "A-3"]).fails(3, "OUT_OF_STOCK");
    server.json(&["return", "A-2"]);
    server.json(&["redeem", "VPN-00000001"]);
    server.run(&["redeem", "VPN-00000001"]).fails(3, "USES_EXHAUSTED");
    server.run(&["replace", "VPN-00000001", "--why", "lost"]).fails(3, "SHARED_UNFIT");
    server.run(&["return", "A-1"]).fails(3, "USES_EXHAUSTED");
}
