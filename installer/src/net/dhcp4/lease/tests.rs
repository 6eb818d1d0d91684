use super::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const XID: u32 = 7;

/// A reply for us that offers 10.0.2.15, with these options.
fn reply(options: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0; FIXED_HEADER];
    bytes[0] = BOOT_REPLY;
    bytes[4..8].copy_from_slice(&XID.to_be_bytes());
    bytes[16..20].copy_from_slice(&[10, 0, 2, 15]);
    bytes[28..34].copy_from_slice(&MAC);
    bytes.extend(MAGIC_COOKIE);
    options.iter().for_each(|option| bytes.extend(*option));
    bytes.push(255);
    bytes
}

const OFFER: &[u8] = &[53, 1, 2];
const SERVER: &[u8] = &[54, 4, 10, 0, 2, 2];
const MASK: &[u8] = &[1, 4, 255, 255, 255, 0];
const HOUR: &[u8] = &[51, 4, 0, 0, 14, 16];

fn offer(extra: &[&[u8]]) -> Lease {
    let mut options = vec![OFFER, SERVER, MASK, HOUR];
    options.extend(extra);
    match parse_reply(&reply(&options), XID, MAC) {
        Ok(Reply::Offer(lease)) => lease,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_plain_offer() {
    let lease = offer(&[
        &[3, 4, 10, 0, 2, 2],
        &[6, 8, 10, 0, 2, 3, 9, 9, 9, 9],
        &[15, 11],
        b"example.org",
        &[42, 4, 10, 0, 2, 4],
    ]);
    assert_eq!(lease.address.to_string(), "10.0.2.15");
    assert_eq!(lease.prefix, 24);
    assert_eq!(lease.duration, Some(Duration::from_secs(3600)));
    assert_eq!((lease.renew_after.as_secs(), lease.rebind_after.as_secs()), (1800, 3150));
    assert_eq!(
        lease.routes,
        [ClasslessRoute { to: Ipv4Addr::UNSPECIFIED, prefix: 0, via: Ipv4Addr::new(10, 0, 2, 2) }]
    );
    assert_eq!(lease.dns.len(), 2);
    assert_eq!(lease.search, ["example.org"]);
    assert_eq!(lease.ntp, [Ipv4Addr::new(10, 0, 2, 4)]);
}

#[test]
fn classless_routes_replace_the_router() {
    let lease =
        offer(&[&[3, 4, 10, 0, 2, 2], &[121, 20, 24, 192, 0, 2, 10, 0, 2, 9, 0, 10, 0, 2, 8, 16, 172, 16, 0, 0, 0, 0]]);
    let shown: Vec<_> =
        lease.routes.iter().map(|route| format!("{}/{} {}", route.to, route.prefix, route.via)).collect();
    assert_eq!(shown, ["192.0.2.0/24 10.0.2.9", "0.0.0.0/0 10.0.2.8", "172.16.0.0/16 0.0.0.0"]);
    let broken = offer(&[&[3, 4, 10, 0, 2, 2], &[121, 5, 33, 10, 0, 0, 0]]);
    assert_eq!(broken.routes.len(), 1, "a broken list leaves the router");
}

#[test]
fn options_in_pieces_and_in_the_file_field() {
    let search = b"\x03one\x07example\x00";
    let (first, second) = search.split_at(5);
    let mut options =
        vec![vec![119, first.len() as u8], first.to_vec(), vec![119, second.len() as u8], second.to_vec()];
    options.push(vec![52, 1, 3]);
    let options: Vec<&[u8]> =
        [OFFER, SERVER, MASK, HOUR].into_iter().chain(options.iter().map(Vec::as_slice)).collect();
    let mut bytes = reply(&options);
    bytes[108..115].copy_from_slice(&[42, 4, 10, 0, 2, 4, 255]);
    bytes[44..51].copy_from_slice(&[6, 4, 10, 0, 2, 3, 255]);
    let Ok(Reply::Offer(lease)) = parse_reply(&bytes, XID, MAC) else { panic!("no offer") };
    assert_eq!(lease.search, ["one.example"]);
    assert_eq!(lease.ntp.len(), 1);
    assert_eq!(lease.dns.len(), 1);
}

#[test]
fn values_that_cannot_be_used_are_left_out() {
    let lease = offer(&[
        &[26, 2, 0, 68],
        &[6, 12, 0, 0, 0, 0, 255, 255, 255, 255, 10, 0, 2, 3],
        &[12, 9],
        b"$(reboot)",
        &[15, 3],
        b"a\nb",
        &[3, 4, 224, 0, 0, 1],
        &[224, 4],
        b"a b\0",
        &[58, 4, 0, 1, 0, 0],
        &[42, 3, 1, 2, 3],
    ]);
    assert_eq!(lease.mtu, None);
    assert_eq!(lease.dns, [Ipv4Addr::new(10, 0, 2, 3)]);
    assert_eq!((lease.hostname, lease.config_url), (None, None));
    assert!(lease.search.is_empty() && lease.routes.is_empty() && lease.ntp.is_empty());
    assert_eq!(lease.renew_after.as_secs(), 1800, "a T1 past the lease is not believed");
}

#[test]
fn impossible_masks_and_times() {
    let check = |mask: [u8; 4], lease: [u8; 4]| {
        let (mut mask_option, mut lease_option) = (vec![1, 4], vec![51, 4]);
        mask_option.extend(mask);
        lease_option.extend(lease);
        let Ok(Reply::Offer(lease)) = parse_reply(&reply(&[OFFER, SERVER, &mask_option, &lease_option]), XID, MAC)
        else {
            panic!("no offer")
        };
        (lease.prefix, lease.duration.map(|duration| duration.as_secs()))
    };
    assert_eq!(check([0, 0, 0, 0], [0, 0, 0, 60]), (8, Some(60)), "mask 0 means the class");
    assert_eq!(check([255, 255, 255, 255], [0, 0, 0, 0]), (32, Some(10)), "a lease of nothing lasts ten seconds");
    assert_eq!(check([255, 0, 255, 0], [255, 255, 255, 255]), (8, None));
}

#[test]
fn answers_for_others_and_rubbish_are_dropped_by_name() {
    let check = |bytes: &[u8], why: &str| assert_eq!(parse_reply(bytes, XID, MAC), Err(why));
    let good = reply(&[OFFER, SERVER, MASK, HOUR]);
    let with = |place: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[place] = value;
        bytes
    };
    check(&good[..100], "shorter than a DHCP message");
    check(&with(0, 1), "not a reply");
    check(&with(4, 1), "for another client");
    check(&with(33, 0), "for another client");
    check(&with(236, 0), "plain BOOTP");
    check(&with(16, 127), "the address offered is not one for a host");
    check(&with(16, 255), "the address offered is not one for a host");
    check(&reply(&[OFFER, MASK, HOUR]), "no server identifier");
    check(&reply(&[OFFER, SERVER, MASK]), "no lease time");
    check(&reply(&[SERVER, MASK, HOUR]), "no message type");
    check(&reply(&[&[53, 1, 1], SERVER]), "a message for servers");
    check(&reply(&[&[53, 200]]), "no message type");
}

#[test]
fn every_cut_of_an_answer_is_survived() {
    let whole = reply(&[OFFER, SERVER, MASK, HOUR, &[121, 5, 0, 10, 0, 2, 2], &[119, 3, 1, 97, 0]]);
    for length in 0..whole.len() {
        let _ = parse_reply(&whole[..length], XID, MAC);
    }
    let mut endless = reply(&[OFFER]);
    endless.extend(vec![0; 60000]);
    assert!(parse_reply(&endless, XID, MAC).is_err());
}

#[test]
fn a_nak_carries_its_reason() {
    let nak = reply(&[&[53, 1, 6], SERVER, &[56, 11], b"wrong place"]);
    let server = Some(Ipv4Addr::new(10, 0, 2, 2));
    assert_eq!(parse_reply(&nak, XID, MAC), Ok(Reply::Nak { server, message: "wrong place".into() }));
}
