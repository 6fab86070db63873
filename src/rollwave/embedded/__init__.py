"""Local servers for the demo and the tests. They end when the program that started them ends."""
