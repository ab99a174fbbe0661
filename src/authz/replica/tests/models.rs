//! The server's model changes, and the copy follows.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_new_model_is_followed_and_a_known_one_is_not_written_again() {
    let mut replica = replica();
    replica.step().await;
    let versions = |replica: &Replica| replica.store().models(None, 10).expect("read").len();
    replica.restart();
    replica.step().await;
    assert_eq!(versions(&replica), 1);
    replica.source.with(|server| server.model_id = "m2".to_owned());
    replica.step().await;
    assert_eq!(versions(&replica), 2);
    assert_eq!(replica.progress.borrow().version.model_id, "m2");
    // The new model does not count with the old tuples, because the changes between the two are not known yet.
    replica.source.with(|server| {
        server.model_id = "m3".to_owned();
        server.log_down = true;
    });
    assert!(replica.follower.step(Instant::now()).await.is_err());
    assert_eq!(replica.progress.borrow().fresh_as_of, None);
    replica.source.with(|server| server.log_down = false);
    replica.step().await;
    assert_eq!(replica.progress.borrow().version.model_id, "m3");
}

/// An operator goes back to the previous model. No tuple has changed meanwhile, so nothing else made the copy store its
/// position.
#[tokio::test(start_paused = true)]
async fn a_server_that_goes_back_to_a_model_is_followed() {
    let mut replica = replica();
    replica.step().await;
    for (model_id, models_read) in [("m2", 2), ("m1", 3), ("m1", 3)] {
        replica.source.with(|server| server.model_id = model_id.to_owned());
        replica.restart();
        replica.step().await;
        assert_eq!(replica.progress.borrow().version.model_id, model_id);
        assert_eq!(replica.source.with(|server| server.models_read), models_read, "{model_id}");
        assert_eq!(replica.store().models(None, 10).expect("read").len(), models_read, "{model_id}");
    }
    // The log fails after the follower took over the model, and the process ends.
    replica.source.with(|server| (server.model_id, server.log_down) = ("m2".to_owned(), true));
    assert!(replica.follower.step(Instant::now()).await.is_err());
    replica.source.with(|server| (server.model_id, server.log_down) = ("m1".to_owned(), false));
    replica.restart();
    replica.step().await;
    assert_eq!(replica.source.with(|server| server.models_read), 5);
    assert_eq!(replica.progress.borrow().version.model_id, "m1");
}
