use super::*;

fn data(block: u16, length: usize) -> Vec<u8> {
    [&DATA.to_be_bytes()[..], &block.to_be_bytes(), &vec![block as u8; length]].concat()
}

fn oack(words: &[&str]) -> Vec<u8> {
    let mut packet = OACK.to_be_bytes().to_vec();
    words.iter().for_each(|word| packet.extend(word.bytes().chain([0])));
    packet
}

fn transfer(max: u64) -> Transfer {
    Transfer::new("node7.yaml", Bytes(max), true)
}

#[test]
fn the_request_names_file_mode_and_options() {
    assert_eq!(transfer(9).request(), b"\0\x01node7.yaml\0octet\0blksize\x001408\0tsize\x000\0windowsize\x008\0");
    assert_eq!(Transfer::new("a", Bytes(9), false).request(), b"\0\x01a\0octet\0");
}

#[test]
fn a_server_without_options_sends_data_at_once() {
    let mut transfer = transfer(9999);
    assert_eq!(transfer.handle(&data(1, 512)), Step::Send(ack(1)));
    assert_eq!(transfer.handle(&data(2, 100)), Step::Done(ack(2)));
    assert_eq!(transfer.content.len(), 612);
}

#[test]
fn an_empty_last_block_ends_a_file_of_whole_blocks() {
    let mut transfer = transfer(9999);
    assert_eq!(transfer.handle(&data(1, 512)), Step::Send(ack(1)));
    assert_eq!(transfer.handle(&data(2, 0)), Step::Done(ack(2)));
}

#[test]
fn a_window_is_acknowledged_as_a_whole() {
    let mut transfer = transfer(9999);
    assert_eq!(transfer.handle(&oack(&["blksize", "8", "windowsize", "3"])), Step::Send(ack(0)));
    assert_eq!(transfer.handle(&data(1, 8)), Step::Hear);
    assert_eq!(transfer.handle(&data(2, 8)), Step::Hear);
    assert_eq!(transfer.handle(&data(3, 8)), Step::Send(ack(3)));
    assert_eq!(transfer.handle(&data(4, 8)), Step::Hear);
    assert_eq!(transfer.handle(&data(6, 8)), Step::Send(ack(4)), "a gap is told");
    assert_eq!(transfer.handle(&data(6, 8)), Step::Ignore, "once");
    assert_eq!(transfer.handle(&data(5, 8)), Step::Hear);
    assert_eq!(transfer.handle(&data(6, 1)), Step::Done(ack(6)));
}

#[test]
fn repetitions_are_not_answered() {
    let mut transfer = transfer(9999);
    assert_eq!(transfer.handle(&data(1, 512)), Step::Send(ack(1)));
    assert_eq!(transfer.handle(&data(1, 512)), Step::Ignore);
    assert_eq!(transfer.handle(&data(0, 512)), Step::Ignore);
    assert_eq!(transfer.content.len(), 512);
}

#[test]
fn block_numbers_roll_over() {
    let mut transfer = transfer(1 << 20);
    assert_eq!(transfer.handle(&oack(&["blksize", "8"])), Step::Send(ack(0)));
    for block in 1..=70_000_u32 {
        assert_eq!(transfer.handle(&data(block as u16, 8)), Step::Send(ack(block as u16)), "block {block}");
    }
    assert_eq!(transfer.content.len(), 560_000);
}

#[test]
fn tricks_with_options_end_the_transfer() {
    let rule = "an option came back with a value that was not offered";
    for words in [
        ["blksize", "0"],
        ["blksize", "7"],
        ["blksize", "1409"],
        ["blksize", "65464"],
        ["blksize", "-1"],
        ["windowsize", "0"],
        ["windowsize", "9"],
        ["multicast", "1"],
    ] {
        assert_eq!(transfer(9).handle(&oack(&words)), Step::End(End::Protocol(rule)), "{words:?}");
    }
    assert_eq!(transfer(9).handle(&oack(&["tsize", "10"])), Step::End(End::TooLong));
    assert!(matches!(Transfer::new("a", Bytes(9), false).handle(&oack(&[])), Step::End(End::Protocol(_))));
}

#[test]
fn no_more_than_allowed_is_kept() {
    let mut transfer = transfer(600);
    assert_eq!(transfer.handle(&oack(&["tsize", "1"])), Step::Send(ack(0)), "a small lie");
    assert_eq!(transfer.handle(&data(1, 512)), Step::Send(ack(1)));
    assert_eq!(transfer.handle(&data(2, 512)), Step::End(End::TooLong));
    assert!(matches!(self::transfer(9999).handle(&data(1, 513)), Step::End(End::Protocol(_))));
}

#[test]
fn errors_are_shown_without_tricks() {
    let packet = error_packet(1, "File \x1b[2Jnot found");
    assert_eq!(transfer(9).handle(&packet), Step::End(End::Refused(1, "File [2Jnot found".into())));
}

#[test]
fn rubbish_is_ignored() {
    for packet in [&b""[..], &[0], &[0, 3], &[0, 3, 0], &[0, 9, 0, 0], &[0, 4, 0, 1]] {
        assert_eq!(transfer(9).handle(packet), Step::Ignore, "{packet:?}");
    }
}

#[test]
fn names_with_escapes() {
    assert_eq!(decode_path("/a%20b/c.yaml").as_deref(), Some("a b/c.yaml"));
    assert_eq!(decode_path("/a%0"), None);
    assert_eq!(decode_path("/a%00b"), None);
}

/// A server on the loopback that answers from another port, as they all do, and loses what it is told to lose.
fn serve(content: Vec<u8>, lose_every: usize) -> SocketAddr {
    let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        let (_, client) = listener.recv_from(&mut buffer).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let blocks: Vec<&[u8]> = content.chunks(BLOCK_DEFAULT).chain([&[][..]]).collect();
        let mut sent = 0;
        for (index, block) in blocks.iter().enumerate() {
            let number = (index as u16).wrapping_add(1);
            let packet = [&DATA.to_be_bytes()[..], &number.to_be_bytes(), block].concat();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            for _ in 0..20 {
                sent += 1;
                if sent % lose_every != 0 {
                    socket.send_to(&packet, client).unwrap();
                }
                if matches!(socket.recv_from(&mut buffer), Ok((4, _)) if buffer[..4] == ack(number)[..]) {
                    break;
                }
            }
        }
    });
    address
}

#[test]
fn a_file_comes_over_a_lossy_wire() {
    let content: Vec<u8> = (0..20 * 512).map(|n: u32| (n / 7) as u8).collect();
    let server = serve(content.clone(), 3);
    let url = format!("tftp://{server}/node7.yaml");
    assert_eq!(get(&url, Bytes::mib(1)).unwrap(), content);
}

#[test]
fn urls() {
    for url in ["http://h/a", "tftp:///a", "tftp://h", "tftp://h/", "nonsense"] {
        assert!(matches!(get(url, Bytes(9)), Err(TftpError::NotAUrl { .. })), "{url}");
    }
}
