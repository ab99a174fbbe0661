//! Where a token is looked for.

use super::*;

#[test]
fn one_header_with_one_token_is_read() {
    let rows: [(&[&str], Result<&str, TokenFault>); 8] = [
        (&[], Err(TokenFault::Absent)),
        (&["Bearer abc"], Ok("abc")),
        (&["bearer abc"], Ok("abc")),
        (&["Bearer"], Err(TokenFault::Invalid)),
        (&["Basic YTpi"], Err(TokenFault::Invalid)),
        (&["DPoP abc"], Err(TokenFault::Invalid)),
        (&["Bearer abc", "Bearer abc"], Err(TokenFault::Invalid)),
        (&["abc"], Err(TokenFault::Invalid)),
    ];
    for (values, expected) in rows {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        assert_eq!(bearer(&headers), expected, "{values:?}");
    }
}
