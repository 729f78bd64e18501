"""Learners of finite MDPs and linear value functions, whose limits are known exactly."""
