"""Who follows whom."""

from services.dispatcher.core.followers import Followers


def test_followers_are_known_in_the_order_they_joined():
    """Both ways."""
    followers = Followers()
    followers.join("b", "a")
    followers.join("c", "a")
    assert followers.of("a") == ("b", "c")
    assert followers.leader_of("c") == "a"
    followers.leave("b")
    assert followers.of("a") == ("c",)
    followers.leave("b")
    followers.leave("c")
    assert followers.of("a") == ()


def test_the_first_follower_leads_the_others():
    """When the leader ended without an answer."""
    followers = Followers()
    for task in "bcd":
        followers.join(task, "a")
    assert followers.promote("a") == ("b", ("c", "d"))
    assert followers.of("b") == ("c", "d")
    assert followers.leader_of("b") is None
    assert followers.promote("a") is None


def test_joining_another_leader_leaves_the_first():
    """One leader at a time."""
    followers = Followers()
    followers.join("c", "a")
    followers.join("c", "b")
    assert followers.of("a") == ()
    assert followers.of("b") == ("c",)
